"""Inference of several models side by side: each in fresh processes of one thread, round by round A B C A B C …

What disturbs the machine then disturbs all alike, and no model profits from the memory of another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from components.artifacts.format import read_json
from pipelines.cache import write_atomically
from pipelines.stages import Progress
from pipelines.study.config import CostConfig

ROOT: Final = Path(__file__).parents[2]
ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}
MAX_QUOTED: Final = 300  # characters of a failed process's last line
Rounds = dict[str, list[dict[str, float]]]


def measured_rounds(
    models: Mapping[str, tuple[Path, str]], prepared: Path, config: CostConfig, file: Path, progress: Progress
) -> tuple[Rounds, dict[str, str]]:
    """What every model's inference costs, round by round, and why some could not be measured.

    Args:
        models: folder and manifest digest of each artifact, by name.
        prepared: the prepared set.
        config: users per round, and rounds.
        file: keeps the figures; they are measured again, all of them, only where `models` or `config` changed.
        progress: what the person who waits is told.
    """
    identity = {"models": {name: digest for name, (_, digest) in models.items()}, "config": config.model_dump()}
    if file.is_file() and (known := read_json(file))["identity"] == identity:
        return known["rounds"], {}
    rounds, failures = _measure({name: folder for name, (folder, _) in models.items()}, prepared, config, progress)
    if not failures:
        write_atomically(file, json.dumps({"identity": identity, "rounds": rounds}, indent=2) + "\n")
    return rounds, failures


def _measure(
    models: Mapping[str, Path], prepared: Path, config: CostConfig, progress: Progress
) -> tuple[Rounds, dict[str, str]]:
    rounds: Rounds = {name: [] for name in models}
    failures: dict[str, str] = {}
    progress.start(config.rounds * len(models), "measurements")
    for number in range(config.rounds):
        for name, folder in models.items():
            if name not in failures:
                progress.note(f"round {number + 1}: {name}")
                found = measure_once(folder, prepared, config.users)
                if isinstance(found, str):
                    failures[name] = found
                else:
                    rounds[name].append(found)
            progress.advance(1)
    return {name: found for name, found in rounds.items() if name not in failures}, failures


def measure_once(artifact: Path, prepared: Path, users: int) -> dict[str, float] | str:
    """One measurement in a process of its own; its last words where it failed.

    Args:
        artifact: a model artifact.
        prepared: the prepared set.
        users: users whose targets are ranked.
    """
    command = [sys.executable, "-m", "pipelines.study.cost_worker", str(artifact), str(prepared), str(users)]
    done = subprocess.run(command, env=_environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1][:MAX_QUOTED] if lines else f"the process ended with {done.returncode}"
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _environment() -> dict[str, Any]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **ONE_THREAD, "PYTHONPATH": path}
