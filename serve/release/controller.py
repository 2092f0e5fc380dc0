"""Drives a release: reads what replicas measure, asks the gate, moves on or goes back. It runs beside the endpoint."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from serve.release.figures import Figures, total
from serve.release.gate import enough, failure
from serve.release.line import Line, Outcome, Release, finished
from serve.trouble import Trouble

logger = logging.getLogger("distilrec.release")
TICK_S: Final = 0.25
LOADING_S: Final = 120.0  # replicas that have not loaded the candidate by then are not going to
LOST: Final = 2  # replicas that end while they have the candidate: one may be chance


@contextmanager
def driven(line: Line) -> Iterator[None]:
    """Drive the releases of a line while the block runs."""
    controller = Controller(line)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


class Controller:
    """Decides on the releases of one line. All that it knows lies in the line's folder, so it may die and come back.

    Args:
        line: the line.
        clock: seconds since 1970; tests bring their own.
    """

    def __init__(self, line: Line, clock: Callable[[], float] = time.time) -> None:
        self.line, self.clock = line, clock
        self._began = clock()  # a step that was under way begins anew: nothing was measured in between
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Decide in a thread of its own until `stop`."""
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. A release under way stays as it is and goes on with the next endpoint."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        driving = Trouble(logger, f"the release of {self.line.folder} cannot be driven")
        while not self._stop.wait(TICK_S):
            with driving.kept():  # such as a full disk; the next tick tries again
                self.tick()

    def tick(self) -> None:
        """Look once, and do what is due."""
        with self.line.locked():
            release = self.line.release()
            if release is None or release.outcome is not None:
                return
            now = self.clock()
            reports = self.line.reports(now)
            ready = [report for report in reports if report.release == release.id and report.step == release.step]
            broken = next((report.failure for report in reports if report.release == release.id and report.failure), "")
            figures = total(report.figures for report in ready)
            reason = broken or self._lost(release, now) or failure(release.policy, figures)
            waited = now - max(release.since, self._began)
            if reason:
                self._back(release, reason, figures)
            elif len(ready) < len(reports) or not ready:
                if waited > LOADING_S:
                    loaded = f"{len(ready)} of {len(reports)} replicas loaded it"
                    self._back(release, f"{loaded} in {LOADING_S:.0f} s", figures)
            else:
                self._forward(release, figures, now, waited)

    def _lost(self, release: Release, now: float) -> str:
        """A candidate that ends its process, for want of memory or by a crash, tells nobody why."""
        lost = [report for report in self.line.lost(now) if report.release == release.id]
        return f"{len(lost)} replicas ended while they had it; look why in their logs" if len(lost) >= LOST else ""

    def _forward(self, release: Release, figures: Figures, now: float, waited: float) -> None:
        policy = release.policy
        if release.step == release.last_step:
            if waited >= policy.watch_seconds:
                self._end(release, "released", "it held every bound", figures)
            return
        if waited < policy.step_seconds or not enough(policy, figures):
            if waited > policy.max_wait_seconds:
                reason = (
                    f"{figures.comparisons} recorded requests in {waited:.0f} s, too few "
                    f"to judge (wanted: {policy.min_comparisons}); ask for fewer, or wait for traffic"
                )
                self._back(release, reason, figures)
            return
        following = release.model_copy(update={"step": release.step + 1, "since": now})
        if following.step == following.last_step:
            self.line.registry.promote(self.line.name, release.candidate)
        self.line.write_release(following)
        self.line.log(release.candidate, following.step_name, f"`{release.step_name}` passed", **figures.shown())

    def _back(self, release: Release, reason: str, figures: Figures) -> None:
        seen = release.step > 0  # by people
        if release.step == release.last_step:
            self.line.registry.promote(self.line.name, release.incumbent)
        self._end(release, "rolled back" if seen else "rejected", f"at `{release.step_name}`: {reason}", figures)

    def _end(self, release: Release, outcome: Outcome, reason: str, figures: Figures) -> None:
        self.line.write_release(finished(release, outcome, reason))
        self.line.log(release.candidate, outcome, reason, **figures.shown())
