"""``kill -9`` of a study, and Ctrl-C, in the middle of its trials; then the same command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.data.synthetic import write_world
from components.schema import MANIFEST_FILE
from pipelines.cache import PARTIAL_PREFIX
from tests.pipelines.study.tiny_study import CONTENT

pytestmark = pytest.mark.chaos
MINUTES = 60.0
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_MODE")  # what this process has and a user's has not


def start(config: Path) -> subprocess.Popen[str]:
    """A study in a process of its own, with a Ray session of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    command = [sys.executable, "-m", "pipelines", "study", "prm-kd", str(config), "--only", "main"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def stop_after_a_trial(config: Path, run: Path, number: signal.Signals) -> tuple[int, str]:
    """Start the study, send the signal when one more trial is done; exit code and what it said."""
    before = len(finished(run))
    process = start(config)
    while process.poll() is None:
        if len(finished(run)) > before:
            process.send_signal(number)
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    _, said = process.communicate(timeout=5 * MINUTES)
    return process.returncode, said


def finished(run: Path) -> dict[str, int]:
    """Time of change of every finished trial's manifest."""
    files = run.glob(f"study/trials/*/{MANIFEST_FILE}")
    return {str(file): file.stat().st_mtime_ns for file in files if PARTIAL_PREFIX not in str(file)}


def test_a_stopped_study_goes_on_trial_by_trial(tmp_path: Path) -> None:
    write_world(tmp_path, num_users=60, num_items=60, domains=("gear",), pictures=False)
    config, run = tmp_path / "tiny.yaml", tmp_path / "runs" / "tiny"
    config.write_text(yaml.safe_dump({**CONTENT, "data": str(tmp_path), "output": str(tmp_path / "runs")}))

    code, said = stop_after_a_trial(config, run, signal.SIGKILL)
    assert code == -signal.SIGKILL, said
    killed = finished(run)
    assert killed

    code, said = stop_after_a_trial(config, run, signal.SIGINT)
    assert code == 130, said
    assert "nothing is lost, the same command goes on from here" in said
    assert "Traceback" not in said
    interrupted = finished(run)
    assert killed.items() < interrupted.items()

    process = start(config)
    _, said = process.communicate(timeout=15 * MINUTES)
    assert process.returncode == 0, said
    assert interrupted.items() <= finished(run).items()
    assert len(finished(run)) == 4  # plain, prm-kd, mostpop, gru4rec
    assert (run / "study" / "main.svg").is_file()
    assert not (run / "study" / ".tune").exists()
    assert not list(run.rglob(f"{PARTIAL_PREFIX}*"))
