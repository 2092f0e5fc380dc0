from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from components.errors import ArtifactError, ConfigError, UserError
from components.recommender import Recommender
from pipelines.serving.command import ServeOptions, check_port, greeting, serve
from pipelines.serving.endpoint import _reason
from serve.settings import Settings, hash_key
from tests.serve.histories.test_base import write_prepared
from tests.serving_process import Served, free_port
from tests.tiny_artifact import item_id, write_artifact


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "run" / "export", num_items=500)
    return tmp_path / "run"


def test_a_taken_port_is_named(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use.*--port"):
            serve(run, ServeOptions(port=port))
    check_port("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot listen on 192.0.2.200:8000"):
        check_port("192.0.2.200", 8000)


def test_an_open_host_without_a_key_is_refused_before_anything_starts(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTILREC_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="DISTILREC_API_KEY"):
        serve(run, ServeOptions(host="0.0.0.0", port=free_port()))


def test_no_process_inherits_the_key(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str | None] = []

    @contextmanager
    def endpoint(artifact: Path, settings: Settings, *_: object) -> Iterator[None]:
        assert "DISTILREC_API_KEY" not in os.environ
        given.append(settings.key_hash)
        yield

    monkeypatch.setenv("DISTILREC_API_KEY", "s3cret")
    monkeypatch.setattr("pipelines.serving.command.endpoint", endpoint)
    serve(run, ServeOptions(port=free_port()), block=False)
    assert given == [hash_key("s3cret")]


def test_a_corrupt_export_is_refused_before_ray_starts(run: Path) -> None:
    path = run / "export" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"model.safetensors: sha256.*truncated.*distilrec export"):
        serve(run, ServeOptions(port=free_port()))


def test_a_run_without_an_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no export"):
        serve(tmp_path, ServeOptions(port=free_port()))


def test_the_greeting_is_a_request_that_works(run: Path) -> None:
    recommender = Recommender(run / "export")
    text = greeting(recommender, "127.0.0.1", 8123, needs_key=True)
    command = shlex.split(next(line for line in text.splitlines() if "curl" in line))
    assert command[:3] == ["curl", "-s", "http://127.0.0.1:8123/v1/recommend"]
    body = json.loads(command[command.index("-d") + 1])
    assert recommender.recommend([body["history"]], body["k"])[0].unknown_items == []
    assert "Authorization: Bearer $DISTILREC_API_KEY" in text


def test_the_reason_of_a_failed_start_is_the_replicas_own() -> None:
    message = "failed\nTraceback (most recent call last):\n  File x\nArtifactError: items.parquet: missing\n\n"
    deployment = SimpleNamespace(message=message)
    status = SimpleNamespace(applications={"distilrec": SimpleNamespace(deployments={"endpoint": deployment})})
    assert _reason(SimpleNamespace(status=lambda: status)) == "ArtifactError: items.parquet: missing"
    deployment.message = ""
    assert _reason(SimpleNamespace(status=lambda: status)) == ""


async def load(url: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:
        return await asyncio.gather(*(client.post(f"{url}/v1/recommend", json=body) for body in bodies))


def listening(pattern: str) -> list[str]:
    """Addresses on which processes whose name matches `pattern` listen."""
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[3] for line in lines if re.search(pattern, line)]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("proxy", ["auto", "plain"])
def test_served_rankings_are_the_offline_ones_under_load(run: Path, proxy: str) -> None:
    offline = Recommender(run / "export")
    bodies = [{"history": [item_id(n), item_id(7 * n % 500 + 1), "nope"], "k": n % 40 + 1} for n in range(1, 201)]
    with Served(run, proxy) as served:
        answers = asyncio.run(load(served.url, bodies))
        assert [answer.status_code for answer in answers] == [200] * 200
        for body, answer in zip(bodies, answers, strict=True):
            expected = offline.recommend([body["history"]], body["k"])[0]
            assert [item["item_id"] for item in answer.json()["items"]] == [item.item_id for item in expected.items]
            assert [item["score"] for item in answer.json()["items"]] == [item.score for item in expected.items]
        assert httpx.get(f"{served.url}/readyz").json()["model"] == offline.name
        assert httpx.get(f"{served.url}/docs").status_code == 200
        assert 'status="200"' in httpx.get(f"{served.url}/metrics").text
        too_large = httpx.post(f"{served.url}/v1/recommend", content=b"x" * 1_500_000)
        assert (too_large.status_code, too_large.json()["code"]) == (413, "too_large")
        wide = [address for address in listening(f":{served.port} |haproxy") if not address.startswith("127.0.0.1")]
        assert wide == []
    assert served.process.returncode == 0
    check_port("127.0.0.1", served.port)


@pytest.mark.slow
@pytest.mark.ray
def test_every_replica_knows_an_event_and_the_next_endpoint_too(run: Path) -> None:
    write_prepared(run / "prepare", [("ann", 1, [3, 4])])
    expected = [item.item_id for item in Recommender(run / "export").recommend([["id-3", "id-4", "id-9"]])[0].items]
    events = [{"user_id": "ann", "item_id": "id-9", "event_id": "1"}]
    for stored in (1, 0):
        with Served(run, replicas=2) as served:
            answer = httpx.post(f"{served.url}/v1/events", json={"events": events})
            assert answer.json() == {"stored": stored, "duplicates": 1 - stored, "unknown_items": []}
            answers = asyncio.run(load(served.url, [{"user_id": "ann"}] * 40))
            assert {answer.status_code for answer in answers} == {200}
            assert all([item["item_id"] for item in answer.json()["items"]] == expected for answer in answers)
        assert served.process.returncode == 0
