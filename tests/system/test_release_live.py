"""A line of releases behind a real endpoint, under traffic: what is good goes out, what is bad comes back."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipelines.serving.releases import deploy, overview, rollback
from serve.release.policy import Policy
from tests.serving_process import Served
from tests.tiny_artifact import item_id, write_artifact

ITEMS = 500
POLICY = Policy(
    shares=(0.2,), step_seconds=2, watch_seconds=2, min_comparisons=30, max_wait_seconds=120, max_latency_ratio=10
)


class Traffic:
    """One visitor after the other, until the block ends."""

    def __init__(self, url: str) -> None:
        self.url, self.statuses, self.models = url, Counter[int](), Counter[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                history = [item_id((number * 7 + place) % ITEMS + 1) for place in range(4)]
                answer = client.post(f"{self.url}/v1/recommend", json={"history": history, "k": 10})
                self.statuses[answer.status_code] += 1
                self.models[answer.json().get("model", "")] += 1


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "releases" / "shop"
    deploy(write_artifact(tmp_path / "first", ITEMS), folder, POLICY, print)
    return folder


@pytest.mark.slow
@pytest.mark.ray
def test_releases_under_traffic(line: Path, tmp_path: Path) -> None:
    good = write_artifact(tmp_path / "good", ITEMS)  # the same weights, so the rankings agree
    bad = write_artifact(tmp_path / "bad", ITEMS, seed=1)
    with Served(line) as served, Traffic(served.url) as traffic:
        first = httpx.get(f"{served.url}/v1/model").json()
        assert first["version"] == "v0001"
        done = deploy(good, line, POLICY, print)
        assert (done.outcome, done.version) == ("released", "v0002"), done.reason
        await_version(served.url, "v0002")
        done = deploy(bad, line, POLICY, print)
        assert done.outcome == "rejected"
        assert "of the incumbent's items" in done.reason
        assert rollback(line).version == "v0001"
        await_version(served.url, "v0001")
    assert set(traffic.statuses) == {200}
    assert set(traffic.models) == {first["name"]}  # nobody met the bad one
    assert overview(line)["history"][-1]["reason"] == "rolled back by hand from v0002"


def await_version(url: str, version: str) -> None:
    end = time.monotonic() + 30
    while httpx.get(f"{url}/v1/model").json()["version"] != version:
        assert time.monotonic() < end, f"{version} does not serve"
