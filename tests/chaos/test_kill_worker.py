"""``kill -9`` of the process that trains a teacher: the run goes on by itself, to the same result."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from components.training.loop import CHECKPOINT
from tests.chaos.test_kill_driver import CONFIG, MINUTES, finish, manifests, start, world, write_config

pytestmark = pytest.mark.chaos
__all__ = ["world"]  # the fixture

TRAINING = "teachers.id.training={epochs: 12, checkpoint_seconds: 0, patience: null}"


def training_processes(driver: psutil.Process) -> list[psutil.Process]:
    """The Ray workers below `driver` that hold a training task."""
    found = []
    for process in driver.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == ["ray::_alone"]:
                found.append(process)
    return found


def has_checkpoint(work: Path) -> bool:
    """Whether a teacher has written one; `os.walk` because folders of finished nodes vanish under the search."""
    return any(
        "state.json" in names and Path(folder).relative_to(work).parts[0].startswith("teach")
        for folder, _, names in os.walk(work)
        if Path(folder).name == CHECKPOINT
    )


def test_a_killed_worker_changes_nothing_but_the_time(tmp_path: Path, world: Path) -> None:
    assert "id" in CONFIG["teachers"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    config = write_config(killed, world)
    process = start(config, TRAINING)
    work = killed / "runs" / "tiny" / ".work"
    victims: list[int] = []
    while process.poll() is None and not victims:
        if has_checkpoint(work):
            for victim in training_processes(psutil.Process(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim.pid, signal.SIGKILL)
                    victims.append(victim.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    _, said = process.communicate(timeout=15 * MINUTES)
    assert victims, f"no teacher was training:\n{said}"
    assert process.returncode == 0, said

    finish(write_config(whole, world), TRAINING)
    expected = {name: content for name, (_, content) in manifests(whole / "runs" / "tiny").items()}
    assert {name: content for name, (_, content) in manifests(killed / "runs" / "tiny").items()} == expected
