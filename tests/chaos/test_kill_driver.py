"""``kill -9`` of the driver in every stage of the real pipeline, then the same command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.data.synthetic import write_world
from components.schema import MANIFEST_FILE
from pipelines.cache import PARTIAL_PREFIX
from pipelines.stages import STAGES

pytestmark = pytest.mark.chaos

LOG = {"interactions": "interactions.csv", "items": "items.csv"}
TINY = {"dim": 16, "inner_dim": 16, "num_experts": 2, "max_length": 10}
CONFIG: dict[str, Any] = {
    "input": {"interactions": "gear/interactions.csv", "items": "gear/items.csv"},
    "prepare": {"min_interactions_per_item": 2},
    "features": {"max_tokens": 8},
    "pretrain": {"domains": {"books": {"data": "books", "input": LOG}}, "training": {"epochs": 2}},
    "teachers": {
        "text": {"kind": "unisrec", "pretrained": True, "training": {"epochs": 2}, **TINY},
        "id": {"kind": "unisrec", "mode": "transductive", "training": {"epochs": 2}, **TINY},
    },
    "student": {"kind": "sasrec", "dim": 16, "max_length": 10},
    "training": {"epochs": 2, "checkpoint_seconds": 0},
    "distillation": {},
    "evaluate": {"bootstrap": 100, "requests": 2},
}
MINUTES = 60.0
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_MODE")  # what this process has and a user's has not


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, num_users=120, num_items=80, domains=("gear", "books"), pictures=False)
    return folder


def write_config(folder: Path, world: Path) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({"name": "tiny", "data": str(world), "output": str(folder / "runs"), **CONFIG}))
    return file


def start(config: Path, *overrides: str) -> subprocess.Popen[str]:
    """A driver in a process of its own, with a Ray session of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    command = [sys.executable, "-m", "pipelines", "run", str(config), *overrides]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def finish(config: Path, *overrides: str) -> str:
    """Run to the end; what it said."""
    process = start(config, *overrides)
    _, said = process.communicate(timeout=15 * MINUTES)
    assert process.returncode == 0, said
    return said


def kill_in(stage: str, config: Path, run: Path) -> None:
    """Start the driver and kill it as soon as a node of `stage` writes."""
    process = start(config)
    while process.poll() is None:
        if working(run, stage):
            os.kill(process.pid, signal.SIGKILL)
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.005)
    _, said = process.communicate(timeout=MINUTES)
    assert process.returncode == -signal.SIGKILL, f"the run ended before stage {stage} began:\n{said}"


def working(run: Path, stage: str) -> bool:
    """Whether a node of `stage` has begun; ``prepare`` writes beside the node, ``distill`` two folders below."""
    return any(run.glob(f"{PARTIAL_PREFIX}{stage}.*")) or any((run / stage).rglob(f"{PARTIAL_PREFIX}*"))


def manifests(run: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every finished node's manifest."""
    files = [file for file in run.rglob(MANIFEST_FILE) if PARTIAL_PREFIX not in str(file)]
    return {str(file.relative_to(run)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_a_driver_killed_in_every_stage_resumes_to_the_same_result(tmp_path: Path, world: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    config, run = write_config(killed, world), killed / "runs" / "tiny"
    for stage in STAGES:
        before = manifests(run)
        kill_in(stage, config, run)
        after = manifests(run)
        assert before.items() <= after.items(), f"a finished node ran again before stage {stage}"
    before = manifests(run)
    finish(config)
    assert before.items() <= manifests(run).items()

    finish(write_config(whole, world))
    expected = {name: content for name, (_, content) in manifests(whole / "runs" / "tiny").items()}
    resumed = {name: content for name, (_, content) in manifests(run).items()}
    assert not [name for name in expected | resumed if resumed.get(name) != expected.get(name)]
    assert not list(run.rglob(f"{PARTIAL_PREFIX}*"))
    assert not list((run / ".work").iterdir())
    assert "nothing to do" in finish(config)
