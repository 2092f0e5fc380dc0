"""The README's commands, run as they stand there, on what `make demo` left."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
DEMO, WORLD = ROOT / "runs" / "demo", ROOT / "runs" / "demo-world"
START_SECONDS = 240
pytestmark = [
    pytest.mark.demo,
    pytest.mark.skipif(not (DEMO / "export").is_dir(), reason="runs/demo is not there; run `make demo` first"),
]


def commands(start: str) -> list[str]:
    """Lines of the README's shell blocks that begin with `start`."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    found = [line for block in blocks for line in block.splitlines() if line.startswith(start)]
    assert found, start
    return found


def distilrec(line: str, *more: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)[1:]
    command = [str(Path(sys.executable).with_name("distilrec")), *words, *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def endpoint() -> Iterator[None]:
    (line,) = commands("distilrec serve")
    command = [str(Path(sys.executable).with_name("distilrec")), *shlex.split(line)[1:]]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        for printed in server.stdout:  # blocks until the endpoint says where it answers
            assert time.monotonic() < deadline, "the endpoint did not start in time"
            if "answers at" in printed:
                break
        else:
            pytest.fail("the endpoint stopped before it answered")
        yield
    finally:
        server.terminate()
        server.wait(timeout=60)


def test_the_endpoint_returns_the_ranking_that_recommend_prints_offline(endpoint: None) -> None:
    (curl,) = commands("curl")
    answer = subprocess.run(shlex.split(curl), capture_output=True, text=True, timeout=60, check=True)
    served: dict[str, Any] = json.loads(answer.stdout)
    (line,) = commands("distilrec recommend")
    offline = json.loads(distilrec(line, "--json").stdout)
    assert [item["item_id"] for item in served["items"]] == [item["item_id"] for item in offline["items"]]
    assert [item["score"] for item in served["items"]] == [item["score"] for item in offline["items"]]
    assert len(served["items"]) == 5


@pytest.mark.parametrize("path", ["/docs", "/v1/model", "/healthz", "/readyz", "/"])
def test_the_endpoint_has_the_pages_that_the_readme_names(endpoint: None, path: str) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:8000{path}", timeout=30) as page:
        assert page.status == 200


def test_the_model_is_released(tmp_path: Path) -> None:
    (deploy,), (releases,) = commands("distilrec deploy"), commands("distilrec releases")
    line = str(tmp_path / "releases" / "main")
    assert "v0001 serves" in distilrec(deploy, "--line", line).stdout
    shown = json.loads(distilrec(releases, line, "--json").stdout)
    assert [(row["version"], row["current"]) for row in shown["versions"]] == [("v0001", True)]


def test_the_demo_is_done_the_second_time() -> None:
    done = distilrec("distilrec demo")
    assert "nothing to do" in done.stderr or "0 of" in done.stderr, done.stderr


def test_your_own_data(tmp_path: Path) -> None:
    """The README's configuration, on the demo's log with the column names of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (config,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    names = {"user_id": "customer", "item_id": "sku", "timestamp": "bought_at"}
    log = pl.read_csv(WORLD / "gear" / "interactions.csv", infer_schema=False).rename(names)
    log.write_csv(tmp_path / "ratings.csv")
    items = pl.read_csv(WORLD / "gear" / "items.csv", infer_schema=False).rename({"item_id": "sku", "title": "name"})
    items.write_csv(tmp_path / "products.csv")
    (tmp_path / "mine.yaml").write_text(config.replace("/path/to/my/data", str(tmp_path)), encoding="utf-8")
    small = [
        *(
            f"teachers.{name}.{key}"
            for name in ("unisrec-text", "unisrec-id")
            for key in ("dim=16", "training.epochs=1")
        ),
        "prepare.max_rejected=0.1",
        "training.epochs=1",
    ]
    dry, run = commands("distilrec run mine.yaml")
    assert "not done yet" in distilrec(dry, *small, folder=tmp_path).stdout
    distilrec(run, *small, folder=tmp_path)
    (report,) = commands("distilrec report")
    assert "prm-kd" in distilrec(report, folder=tmp_path).stdout
