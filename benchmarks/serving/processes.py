"""What the processes of an endpoint cost: CPU-seconds and resident memory, by part."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import AbstractContextManager, suppress
from typing import Final

import psutil  # type: ignore[import-untyped]

REPLICA: Final = "ray::ServeReplica:"
MEGABYTE: Final = 2**20


def replicas(application: str = "") -> list[psutil.Process]:
    """Living replicas below this process, of one application of Ray Serve or of all, the oldest first."""
    found = [process for process in _below() if _title(process).startswith(f"{REPLICA}{application}")]
    return sorted(found, key=lambda process: process.create_time())


def cpu_seconds(application: str) -> dict[str, float]:
    """CPU-seconds so far: ``replica`` (of `application`), ``proxy`` (HAProxy) and ``ray`` (everything else below)."""
    spent: Counter[str] = Counter()
    for process in _below():
        title = _title(process)
        if not title or title.split("/")[-1].startswith("wrk"):
            continue
        if title.startswith(REPLICA):
            part = "replica" if title.startswith(f"{REPLICA}{application}:") else "others"
        else:
            part = "proxy" if "haproxy" in title else "ray"
        with suppress(psutil.Error):  # it ended meanwhile
            times = process.cpu_times()
            spent[part] += times.user + times.system
    return dict(spent)


class MemoryWatch(AbstractContextManager["MemoryWatch"]):
    """Samples the resident memory of replicas and proxy while its block runs.

    Attributes:
        samples: megabytes, one per `interval_s`.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        self.samples: list[float] = []
        self._interval_s, self._stop = interval_s, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        watched = [
            process for process in _below() if _title(process).startswith(REPLICA) or "haproxy" in _title(process)
        ]
        while True:
            total = 0
            for process in watched:
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            self.samples.append(total / MEGABYTE)
            if self._stop.wait(self._interval_s):
                return

    @property
    def peak_mb(self) -> float:
        """The highest sample."""
        return max(self.samples)

    @property
    def growth(self) -> float:
        """By which share memory grew, see `growth`."""
        return growth(self.samples)


def growth(samples: list[float]) -> float:
    """By which share the median of the last tenth of `samples` is above that of the second tenth.

    The first tenth is warm-up: buffers and caches of a fresh process fill.

    >>> growth([50.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 105.0])
    0.05
    """
    tenth = max(1, len(samples) // 10)
    first = sorted(samples[tenth : 2 * tenth] or samples[:1])
    last = sorted(samples[-tenth:])
    before, after = first[len(first) // 2], last[len(last) // 2]
    return round(after / before - 1, 4)


def _below() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


def _title(process: psutil.Process) -> str:
    """A process's command line; empty where it ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
