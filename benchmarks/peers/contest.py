"""The contest: start every contender as a process of its own, interleave their rounds, compare round by round.

A B C A B C …: round ``i`` of every contender lies close in time to round ``i`` of the others, so that a busy machine or
a changed clock frequency hits all alike. Ratios are therefore taken per round and quoted as minimum, median, maximum.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.environments import ROOT, python_of

CACHE = ROOT / "benchmarks" / ".cache"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "ARROW_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
LOG_TAIL = 600  # characters of a dead contender's log that are quoted


class ContenderError(Exception):
    """A contender ended or answered nonsense; the message quotes its log."""


@dataclass(frozen=True)
class Contender:
    """One side of the contest.

    Attributes:
        name: how tables call it.
        module: below `benchmarks.peers`.
        environment: whose interpreter runs it (a name of `environments.PEERS`, or ours).
        options: sizes and whatever else the worker reads.
        steps: steps per round.
        against: the contender of ours that this one is compared with; None for our own.
        seconds: CPU-seconds per round, instead of `steps`; for sides whose steps cost about the same.
    """

    name: str
    module: str
    environment: str
    options: dict[str, Any]
    steps: int
    against: str | None = None
    seconds: float | None = None


@dataclass
class Result:
    """What one contender said of itself and did."""

    contender: Contender
    facts: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    @property
    def peak_mb(self) -> float:
        """Highest resident memory of the process in its whole life, preparation included."""
        return max((float(each["peak_mb"]) for each in self.rounds), default=float("nan"))

    @property
    def work_peak_mb(self) -> float:
        """Highest resident memory during the rounds alone."""
        return max((float(each["work_peak_mb"]) for each in self.rounds), default=float("nan"))


class Worker:
    """A contender's process."""

    def __init__(self, contender: Contender, log_folder: Path) -> None:
        self.contender = contender
        self.log = log_folder / f"{re.sub(r'[^a-z0-9]+', '-', contender.name.lower())}.log"
        log_folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [
                    str(python_of(contender.environment)),
                    "-m",
                    f"benchmarks.peers.{contender.module}",
                    json.dumps(contender.options),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=log_folder,  # libraries that write logs beside them write here
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
            )
        self.facts = self._answer()["ready"]

    def round(self, steps: int) -> dict[str, Any]:
        """Run `steps` steps and return what they cost."""
        return self.ask(steps=steps)

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Ask for what `session` knows, a round or a ranking, and return the answer."""
        stdin = self._stream(self._process.stdin)
        try:
            stdin.write(json.dumps(asked) + "\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise self._error() from error
        return self._answer()

    def close(self) -> None:
        """End the process: its stdin closes, it exits by itself; what lingers is killed."""
        with contextlib.suppress(BrokenPipeError):  # it was killed; what was asked of it last lies in the pipe
            self._stream(self._process.stdin).close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._stream(self._process.stdout).readline()
        if not line.strip():
            raise self._error()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _error(self) -> ContenderError:
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)  # its pipe is closed, so it is about to end
        status = self._process.returncode
        how = "ended" if status is None else f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
        return ContenderError(f"{self.contender.name} {how}; its log {self.log} ends in:\n{tail}")

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        if stream is None:
            raise ContenderError("the process has no pipe")
        return stream


def compete(
    contenders: Sequence[Contender], rounds: int, log_folder: Path, note: Callable[[str], None] = lambda text: None
) -> list[Result]:
    """Run the contest: one warm-up round each, then `rounds` interleaved rounds.

    A contender that fails is left out from then on; its result says why.
    """
    results = [Result(contender) for contender in contenders]
    workers: dict[str, Worker] = {}

    def attempt(result: Result, action: Callable[[], None]) -> None:
        try:
            action()
        except ContenderError as error:
            result.failure = str(error)
            note(f"{result.contender.name} failed, see the table")

    def start(result: Result) -> None:
        began = time.perf_counter()
        worker = workers[result.contender.name] = Worker(result.contender, log_folder)
        result.facts = worker.facts
        worker.round(max(2, result.contender.steps // 10) if result.contender.steps > 1 else 1)
        note(f"{result.contender.name}: ready after {time.perf_counter() - began:.0f} s")

    def once(result: Result) -> None:
        worker, seconds = workers[result.contender.name], result.contender.seconds
        result.rounds.append(worker.round(result.contender.steps) if seconds is None else worker.ask(seconds=seconds))

    try:
        for result in results:
            attempt(result, lambda result=result: start(result))  # type: ignore[misc]
        for number in range(rounds):
            for result in results:
                if result.failure is None:
                    attempt(result, lambda result=result: once(result))  # type: ignore[misc]
            note(f"round {number + 1} of {rounds} done")
    finally:
        for worker in workers.values():
            worker.close()
    return results


def rates(rounds: Sequence[dict[str, Any]], clock: str = "cpu_s") -> list[float]:
    """Units per second of `clock` ("cpu_s" or "wall_s"), one per round.

    >>> rates([{"units": 10, "cpu_s": 2.0}])
    [5.0]
    """
    return [each["units"] / each[clock] for each in rounds]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum.

    >>> spread([3.0, 1.0, 2.0])
    {'min': 1.0, 'median': 2.0, 'max': 3.0}
    """
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Spread of ours / theirs, round by round.

    >>> ratio([10.0, 30.0], [5.0, 10.0])
    {'min': 2.0, 'median': 2.5, 'max': 3.0}

    Raises:
        ValueError: the numbers of rounds differ.
    """
    return spread([ours_i / theirs_i for ours_i, theirs_i in zip(ours, theirs, strict=True)])


def compare(results: Sequence[Result], clock: str = "cpu_s") -> dict[str, dict[str, Any]]:
    """By name of each contender that is compared: ratio of rates and of memory, ours over theirs."""
    by_name = {result.contender.name: result for result in results if result.failure is None}
    compared: dict[str, dict[str, Any]] = {}
    for name, theirs in by_name.items():
        ours = by_name.get(theirs.contender.against or "")
        if ours is None:
            continue
        compared[name] = {
            "against": ours.contender.name,
            "rate": ratio(rates(ours.rounds, clock), rates(theirs.rounds, clock)),
            "peak_memory": ours.peak_mb / theirs.peak_mb,
            "work_peak_memory": ours.work_peak_mb / theirs.work_peak_mb,
        }
    return compared


def machine() -> dict[str, Any]:
    """Where this ran."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def document(
    name: str, settings: dict[str, Any], results: Sequence[Result], clock: str = "cpu_s", unit: str = "targets"
) -> dict[str, Any]:
    """Everything that was measured, ready for JSON."""
    return {
        "benchmark": name,
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "machine": machine(),
        "settings": settings,
        "unit": f"{unit} per {'CPU' if clock == 'cpu_s' else 'wall'}-second",
        "contenders": {
            result.contender.name: {
                "facts": result.facts,
                "steps_per_round": result.contender.steps,
                "rounds": result.rounds,
                "rate": spread(rates(result.rounds, clock)) if result.rounds else None,
                "peak_mb": result.peak_mb if result.rounds else None,
                "work_peak_mb": result.work_peak_mb if result.rounds else None,
                "failure": result.failure,
            }
            for result in results
        },
        "ours_over_theirs": compare(results, clock),
    }
