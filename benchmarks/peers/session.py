"""The worker's end of a contest: rounds of steps on request, and what they cost this process.

A worker is started as ``python -m benchmarks.peers.NAME JSON``, builds its model, calls `Session.begin` once and
`Session.tick` after every step. Between rounds it sleeps inside `tick` until the contest asks for more, and its clock
stands still. One line of JSON on stdin asks for a round, of steps (``{"steps": 25}``) or of CPU time
(``{"seconds": 60}``, ended by the step that uses it up), or for a ranking (``{"rank": "test", "file": PATH}``); one
line of JSON on stdout answers it.

Only the standard library is imported here: each peer runs in an environment of its own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what Linux wants written to reset VmHWM


def cpu_seconds() -> float:
    """User and system time of this process and all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_megabytes() -> float:
    """Highest resident memory since the process began or the peak was reset, in MB (2**20 bytes)."""
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> bool:
    """Forget the peak so far; False where the system does not offer it."""
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


class Session:
    """One worker's conversation with the contest.

    Args:
        asked: where the rounds are asked for.
        answers: where they are answered.
    """

    def __init__(self, asked: TextIO, answers: TextIO) -> None:
        self._asked, self._answers = asked, answers
        self._left = self._units = 0
        self._seconds: float | None = None
        self._rank: Callable[[str, str], None] | None = None
        self._values: list[float] = []
        self._setup_peak = 0.0

    @classmethod
    def start(cls) -> tuple[Session, dict[str, Any]]:
        """Pin the process, keep stdout for answers alone (a library's prints go to stderr) and read the options."""
        options: dict[str, Any] = json.loads(sys.argv[1])
        if options.get("core") is not None:
            os.sched_setaffinity(0, {options["core"]})
        answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        return cls(sys.stdin, answers), options

    def begin(self, rank: Callable[[str, str], None] | None = None, **facts: Any) -> None:
        """Say what was built and wait for the first round.

        Args:
            rank: called as ``rank(part, file)``: ranks for the users of "valid" or "test" with the model as it is,
                writes the lists to the file (`dataset.write_lists`) and leaves the model ready to train on. None
                where the worker offers no rankings.
            facts: what is told about the model.
        """
        self._rank = rank
        self._setup_peak = peak_megabytes()
        reset_peak()
        self._answer({"ready": facts, "setup_peak_mb": self._setup_peak})
        self._wait()

    def tick(self, units: int, value: float = 0.0) -> None:
        """Count one step of `units` targets or users; at the end of a round answer, then wait for the next.

        Args:
            units: what the step worked off.
            value: a number that shows that the work was real, such as the loss; its mean is answered.

        Raises:
            SystemExit: the contest is over.
        """
        self._units += units
        self._values.append(float(value))
        if not self._over():
            return
        peak = peak_megabytes()
        self._answer(
            {
                "steps": len(self._values),
                "units": self._units,
                "cpu_s": cpu_seconds() - self._cpu,
                "wall_s": time.perf_counter() - self._wall,
                "value": sum(self._values) / len(self._values),
                "work_peak_mb": peak,
                "peak_mb": max(peak, self._setup_peak),
            }
        )
        self._wait()

    def _over(self) -> bool:
        if self._seconds is not None:
            return cpu_seconds() - self._cpu >= self._seconds
        self._left -= 1
        return self._left <= 0

    def _answer(self, message: dict[str, Any]) -> None:
        self._answers.write(json.dumps(message) + "\n")

    def _wait(self) -> None:
        asked = self._asked_for()
        while "rank" in asked:
            if self._rank is None:
                raise ValueError(f"asked to rank the part {asked['rank']!r}, but this worker ranks for nobody")
            self._rank(asked["rank"], asked["file"])
            self._answer({"ranked": asked["rank"]})
            asked = self._asked_for()
        self._left, self._seconds = int(asked.get("steps", 0)), asked.get("seconds")
        self._units, self._values = 0, []
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def _asked_for(self) -> dict[str, Any]:
        line = self._asked.readline()
        if not line.strip():
            raise SystemExit(0)
        asked: dict[str, Any] = json.loads(line)
        return asked
