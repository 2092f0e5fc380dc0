"""How a replica follows its line: it loads what the line names, swaps its models as a whole, and reports."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from components.artifacts.format import FILES, read_manifest
from components.errors import DistilrecError
from components.recommender import Recommender
from serve.logs import spoken
from serve.models import Models, Served
from serve.release.figures import Figures
from serve.release.line import LOADING, Line, Release, Report
from serve.release.recorder import Recorder
from serve.release.trial import Trial
from serve.trouble import Trouble

logger = logging.getLogger("distilrec.release")
TICK_S: Final = 0.25
REPORT_S: Final = 0.5


class Follower:
    """Keeps the models of one replica in step with a line.

    Args:
        line: the line.
        replica: name of this replica.
        load: reads an artifact and checks that it answers.
        grow: lets a loaded model take up items that were added while serving, before anybody meets it.

    Raises:
        DistilrecError: the version that serves cannot be loaded.
    """

    def __init__(
        self,
        line: Line,
        replica: str,
        load: Callable[[Path], Recommender],
        grow: Callable[[Served], None] = lambda _: None,
    ) -> None:
        self.line, self.replica, self._load, self._grow = line, replica, load, grow
        self.recorder = Recorder()
        self.trial: Trial | None = None
        self._loaded: dict[str, Served] = {}
        self._failed: dict[str, str] = {}  # id of the last release that could not be followed -> why
        self._step: tuple[str, int] | None = None
        self._release: Release | None = None
        running = self._running()
        self.models = Models(self._served(running.incumbent if running else line.current()))
        self._stop = threading.Event()

    def start(self) -> Follower:
        """Follow in a thread of its own."""
        threading.Thread(target=self._run, name="follower", daemon=True).start()
        return self

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()
        self._end_trial()

    def _run(self) -> None:
        following = Trouble(logger, f"cannot follow {self.line.folder}; what serves goes on serving")
        reporting = Trouble(logger, f"cannot report to {self.line.folder}")
        reported = 0.0
        while True:
            with following.kept():  # such as a version that is damaged
                self.sync()
            if time.monotonic() - reported >= REPORT_S:
                with reporting.kept():  # such as a full disk
                    self.report()
                reported = time.monotonic()
            if self._stop.wait(TICK_S):
                return

    def sync(self) -> None:
        """Look at the line once and do what it says.

        Raises:
            DistilrecError: the version that it names cannot be loaded; the models stay as they are.
        """
        release = self._running()
        if release is None:
            self._settle(self.line.current())
        elif release.id not in self._failed:
            self._try(release)

    def report(self) -> None:
        """Tell the line what was measured."""
        incumbent, release, trial = self.models.incumbent, self._release, self.trial
        failure = self._failed.get(release.id, "") if release else ""
        if release is None or self._step is None or self._step[0] != release.id:
            trial = None  # it is of the release before
        self.line.report(
            Report(
                replica=self.replica,
                time=time.time(),
                serving=incumbent.version if incumbent else None,
                release=release.id if release else None,
                step=self._step[1] if trial and self._step else LOADING,
                figures=trial.figures() if trial else Figures(),
                failure=failure or (trial.stuck() if trial else ""),
            )
        )

    def _running(self) -> Release | None:
        release = self.line.release()
        return release if release is not None and release.outcome is None else None

    def _settle(self, version: str) -> None:
        """No release is under way: one version answers everybody, the one before stays at hand."""
        self._release = None
        before = self.models
        if before.incumbent is not None and before.incumbent.version == version and before.candidate is None:
            self._end_trial()
            return
        if (
            before.candidate is not None and version not in self._loaded
        ):  # loading takes its time, and the trial is over
            self._swap(Models(before.incumbent, others=(before.candidate,)))
        self._end_trial()
        serving = self._served(version)
        others = [served for served in before.loaded if served.version != version][:1]
        self._swap(Models(serving, others=tuple(others)))

    def _try(self, release: Release) -> None:
        self._release = release
        if self._step == (release.id, release.step):
            return
        incumbent = self._served(release.incumbent)
        if release.candidate not in self._loaded:
            self.report()  # so that it is known who had it, where loading it costs the process
        try:
            candidate = self._served(release.candidate)
        except Exception as error:  # whatever it is: the release ends, and this replica goes on
            logger.exception("candidate %s does not load", release.candidate)
            self._failed = {release.id: f"it does not load: {spoken(error)}"}
            return
        self._end_trial()
        self.trial = Trial(incumbent, candidate, release.policy, self.recorder).start()
        self._swap(Models(incumbent, candidate, release.share))
        self._step = (release.id, release.step)

    def _end_trial(self) -> None:
        if self.trial is not None:
            self.trial.stop()
        self.trial, self._step = None, None

    def _served(self, version: str) -> Served:
        loaded = self._loaded.get(version)
        if loaded is None or self._replaced(loaded):
            loaded = Served(version, self._load(self.line.path(version)))
            self._grow(loaded)
            self._loaded[version] = loaded
        return loaded

    def _replaced(self, served: Served) -> bool:
        """Whether its folder holds another artifact by now: where the latest version was deleted, the next release gets
        its number. A folder that is gone or damaged is none: what was loaded is good."""
        try:
            found = read_manifest(self.line.path(served.version))
        except DistilrecError:
            return False
        return bool(found[FILES] != served.recommender.manifest[FILES])

    def _swap(self, models: Models) -> None:
        """Requests that began go on with what they saw; models that nobody needs are let go."""
        self.models = models
        self._loaded = {served.version: served for served in models.loaded}
