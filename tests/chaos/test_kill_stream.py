"""``kill -9`` of `distilrec stream` in the middle; the same command then gives what a run without a kill gives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.stream.configs import CONTENT, stream_config
from tests.pipelines.stream.logs import rating_lines

pytestmark = pytest.mark.chaos
MINUTES = 60.0
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_MODE")  # what this process has and a user's has not


def start(config: Path, name: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    command = [sys.executable, "-m", "pipelines", "stream", str(config), f"name={name}"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def document(config: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config.parent / "runs" / name / "stream.json").read_text())
    return {**found, "dataset": ""}


def test_a_killed_stream_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    stream = {**CONTENT["stream"], "methods": ["esapn"]}
    config = stream_config(tmp_path, rating_lines(20_000, users=200, items=300), stream=stream)
    whole = start(config, "whole")
    _, said = whole.communicate(timeout=10 * MINUTES)
    assert whole.returncode == 0, said

    killed, begun = start(config, "killed"), tmp_path / "runs" / "killed" / ".work"
    while killed.poll() is None:
        if list(begun.glob("stream*/*/checkpoint/state.json")):
            killed.send_signal(signal.SIGKILL)
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            killed.wait(0.01)
    _, said = killed.communicate(timeout=5 * MINUTES)
    assert killed.returncode == -signal.SIGKILL, said
    assert not (tmp_path / "runs" / "killed" / "stream.json").exists()

    again = start(config, "killed")
    _, said = again.communicate(timeout=10 * MINUTES)
    assert again.returncode == 0, said
    assert document(config, "killed") == document(config, "whole")
    tensors = [tmp_path / "runs" / name / "stream/esapn/seed-0/model.safetensors" for name in ("killed", "whole")]
    assert tensors[0].read_bytes() == tensors[1].read_bytes()
