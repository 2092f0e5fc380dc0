"""``kill -9`` of a search in the middle of its students; then the same command."""

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

from components.artifacts.format import read_json
from components.data.synthetic import write_world
from pipelines.search.config import RESULT_FILE
from pipelines.search.stage import TRIALS_FOLDER
from pipelines.search.trial import read_records
from tests.chaos.test_kill_driver import FOREIGN, MINUTES

pytestmark = pytest.mark.chaos
TRIALS = 8
CONFIG: dict[str, Any] = {
    "name": "tiny",
    "input": {"interactions": "gear/interactions.csv", "items": "gear/items.csv"},
    "prepare": {"min_interactions_per_item": 2},
    "student": {"kind": "sasrec", "dim": 16, "max_length": 10},
    "training": {"epochs": 6, "patience": None, "checkpoint_seconds": 0},
    "baselines": ["mostpop"],
    "search": {"spaces": ["compression", "quantization"], "trials": TRIALS, "grace_epochs": 2, "max_parallel": 2},
    "evaluate": {"bootstrap": 100, "requests": 2},
}


def start(config: Path) -> subprocess.Popen[str]:
    """A search in a process of its own, with a Ray session of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    command = [sys.executable, "-m", "pipelines", "search", str(config)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def over(run: Path) -> dict[str, int]:
    """Time of change of the record of every student that is over."""
    found = {}
    for folder in (run / TRIALS_FOLDER).glob("*"):
        for record in read_records(folder):
            if record.over:
                found[record.key] = (folder / record.key[:16] / "record.json").stat().st_mtime_ns
    return found


def test_a_killed_search_trains_no_finished_student_again(tmp_path: Path) -> None:
    write_world(tmp_path, num_users=120, num_items=80, domains=("gear",), pictures=False)
    config, run = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    config.write_text(yaml.safe_dump({**CONFIG, "data": str(tmp_path), "output": str(tmp_path / "runs")}))

    process = start(config)
    while process.poll() is None:
        if len(over(run)) >= 2:
            process.send_signal(signal.SIGKILL)
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    _, said = process.communicate(timeout=5 * MINUTES)
    assert process.returncode == -signal.SIGKILL, said
    killed = over(run)
    assert 2 <= len(killed) < TRIALS

    process = start(config)
    _, said = process.communicate(timeout=15 * MINUTES)
    assert process.returncode == 0, said
    assert "are over and train no more" in said
    finished = over(run)
    assert killed.items() <= finished.items()
    found = read_json(run / "search" / RESULT_FILE)
    assert len(found["students"]) == TRIALS
    assert {student["key"] for student in found["students"]} >= set(killed)
    assert (run / "export" / "model.safetensors").is_file()
