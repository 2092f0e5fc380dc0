"""A run on two real Ray nodes: by both ways of submission, with and without a shared disk, as on one machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.data.synthetic import write_world
from pipelines.storage.kept import fetch_run
from tests.pipelines.storage.conftest import KEYS, bucket, s3_server  # noqa: F401 - fixtures
from tests.system.ray_nodes import FOREIGN, RAY, Nodes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo.yaml"
CLOCKED = ("latency_ms", "train_seconds_per_epoch")
ROLES = {role: {role: 0.001} for role in ("data", "teachers", "students")}
TINY = {
    "input": {"interactions": "gear/interactions.csv", "items": "gear/items.csv"},
    "prepare": {"min_interactions_per_item": 2, "fast_path_rows": 0},
    "features": {"max_tokens": 8},
    "teachers": {
        "id": {
            "kind": "unisrec",
            "mode": "transductive",
            "dim": 16,
            "inner_dim": 16,
            "num_experts": 2,
            "max_length": 10,
            "training": {"epochs": 2},
        }
    },
    "student": {"kind": "sasrec", "dim": 16, "max_length": 10},
    "training": {"epochs": 2},
    "distillation": {},
    "evaluate": {"bootstrap": 100, "requests": 2},
    "cluster": {"placement": ROLES},
}


@pytest.fixture(scope="module")
def nodes(s3_server: str) -> Iterator[Nodes]:  # noqa: F811
    """A head for data and students, and a node for teachers with a scratch disk of its own."""
    with Nodes({**KEYS, "AWS_ENDPOINT_URL": s3_server}) as cluster:
        cluster.start(2, {"data": 1000, "students": 1000}, scratch="head")
        cluster.start(2, {"teachers": 1000}, scratch="worker")
        yield cluster


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, num_users=120, num_items=80, domains=("gear",), pictures=False)
    return folder


def write_tiny(folder: Path, world: Path, name: str, output: object, **more: Any) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": name, "data": str(world), "output": str(output), **TINY, **more}))
    return file


def distilrec(nodes: Nodes, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return nodes.run(sys.executable, "-m", "pipelines", *map(str, words), PYTHONPATH=str(ROOT), **variables)


def submit(nodes: Nodes, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return distilrec(nodes, "submit", *words, "--address", nodes.url, **variables)


def ray_job(nodes: Nodes, *words: object) -> subprocess.CompletedProcess[str]:
    excludes = json.dumps({"excludes": ["runs", ".venv", ".git", "docs", "tests", "demo-data"]})
    sent = ["job", "submit", "--address", nodes.url, "--working-dir", str(ROOT), "--runtime-env-json", excludes]
    return nodes.run(str(RAY), *sent, "--", "python", "-m", "pipelines", "run", *map(str, words))


def leaderboard(run: Path) -> Any:
    """Without what a clock measured."""
    found = json.loads((run / "leaderboard.json").read_bytes())
    for row in found["rows"]:
        for key in CLOCKED:
            row.pop(key)
    return found


def local(nodes: Nodes, *words: object) -> None:
    environment = {name: value for name, value in nodes.environment.items() if name not in FOREIGN}
    environment.pop("RAY_AUTH_TOKEN_PATH")
    command = [sys.executable, "-m", "pipelines", "run", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_tiny_run_is_the_same_on_two_nodes_with_and_without_a_shared_disk(
    nodes: Nodes,
    world: Path,
    tmp_path: Path,
    bucket: str,  # noqa: F811
) -> None:
    local(nodes, write_tiny(tmp_path, world, "tiny", tmp_path / "local"))
    expected = leaderboard(tmp_path / "local/tiny") | {"dataset": ""}

    config = write_tiny(tmp_path, world, "tiny", bucket)
    planned = distilrec(nodes, "plan", config, "--address", nodes.url)
    assert planned.returncode == 0, planned.stderr
    done = submit(nodes, config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prm-kd" in done.stdout
    fetch_run(f"{bucket}/tiny", tmp_path / "fetched")
    assert leaderboard(tmp_path / "fetched") | {"dataset": ""} == expected
    fetched = {path.name for path in (nodes.folder / "worker").glob("*/nodes/*/*")}
    assert {"prepare", "features"} <= fetched, "the teachers' node worked on its own disk"

    again = ray_job(nodes, config)
    assert "nothing to do" in again.stdout, again.stdout + again.stderr


def test_a_stopped_job_is_attached_to_and_goes_on_when_it_is_submitted_again(
    nodes: Nodes, world: Path, tmp_path: Path
) -> None:
    config = write_tiny(tmp_path, world, "stopped", tmp_path / "runs", training={"epochs": 100_000, "patience": None})
    sent = submit(nodes, config, "--no-wait", "--json")
    assert sent.returncode == 0, sent.stderr
    job = json.loads(sent.stdout)["job"]
    second = submit(nodes, config, "--no-wait")
    assert second.returncode == 2
    assert f"job {job} works on" in second.stderr
    words = [sys.executable, "-m", "pipelines", "submit", "--attach", job, "--address", nodes.url]
    environment = {**nodes.environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert any("distill/plain/seed-0: starts" in line for line in following.stdout), "the log ended early"
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=120)
    assert following.returncode == 128 + signal.SIGINT
    assert f"job {job} goes on" in said
    stopped = submit(nodes, "--stop", job, "--json")
    assert json.loads(stopped.stdout)["status"] == "STOPPED", stopped.stderr
    assert (tmp_path / "runs/stopped/prepare/manifest.json").is_file()
    done = submit(nodes, config, "training.epochs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prepare: starts" not in done.stdout


def test_mistakes_come_back_as_the_jobs_exit_code_or_before_it_is_sent(
    nodes: Nodes, world: Path, tmp_path: Path
) -> None:
    config = write_tiny(tmp_path, world, "wrong", tmp_path / "runs")
    missing = submit(nodes, config, "data=/nowhere/at/all")
    assert missing.returncode == 2
    assert "does not exist or holds no readable file" in missing.stdout
    relative = ray_job(nodes, config, "output=runs")
    assert relative.returncode == 1, "what `ray job submit` makes of any exit code"
    assert "output: runs would lie in the job's own temporary folder" in relative.stdout
    impossible = distilrec(nodes, "plan", config, "cluster.num_workers=9", "--address", nodes.url)
    assert impossible.returncode == 2
    wrong = submit(nodes, config, RAY_AUTH_TOKEN="not-the-token")
    assert wrong.returncode == 2
    assert "refuses the token" in wrong.stderr
    tokenless = submit(nodes, config, RAY_AUTH_MODE="disabled")
    assert tokenless.returncode == 2
    assert "asks for a token" in tokenless.stderr
    bad_store = submit(nodes, config, "output=s3://nowhere/runs")
    assert bad_store.returncode == 1
    assert "s3://nowhere/runs/wrong: cannot write" in bad_store.stdout
    for done in (missing, impossible, wrong, tokenless, bad_store):
        assert "Traceback" not in done.stdout + done.stderr


def test_the_demo_has_the_same_leaderboard_from_two_nodes_by_both_ways(nodes: Nodes, tmp_path: Path) -> None:
    world = tmp_path / "world"
    write_world(world)
    local(nodes, DEMO, f"data={world}", f"output={tmp_path / 'local'}")
    placed = f"cluster.placement={json.dumps(ROLES)}"
    done = submit(
        nodes, DEMO, f"data={world}", f"output={tmp_path / 'submitted'}", placed, "--working-dir", ROOT / "configs"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    by_ray = ray_job(nodes, "configs/demo.yaml", f"data={world}", f"output={tmp_path / 'by-ray'}", placed)
    assert by_ray.returncode == 0, by_ray.stdout + by_ray.stderr
    expected = leaderboard(tmp_path / "local/demo")
    assert leaderboard(tmp_path / "submitted/demo") == expected
    assert leaderboard(tmp_path / "by-ray/demo") == expected
