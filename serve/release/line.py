"""The folder of a line of releases: who serves, what is under way, what happened, what replicas measure."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.artifacts.format import storage_error
from components.artifacts.registry import POINTER, Registry
from components.errors import ArtifactError, UserError
from serve.release.figures import Figures
from serve.release.policy import Policy

RELEASE_FILE: Final = "release.json"
LOG_FILE: Final = "releases.jsonl"
LOCK_FILE: Final = ".lock"
REPLICAS: Final = "replicas"
FRESH_S: Final = 5.0  # a replica that has not reported for longer is gone, or loads a model
LOADING: Final = -1  # the step of a replica that has not loaded the candidate
Outcome = Literal["released", "rejected", "rolled back", "aborted"]


class Release(BaseModel):
    """A release under way, or the last one.

    Attributes:
        id: tells this release from others of the same version.
        candidate: the version on trial.
        incumbent: the version that served when it began, and serves again where it fails.
        policy: steps and bounds.
        step: 0 is the shadow, then one for each share of the policy, then everybody.
        since: when the step began, seconds since 1970.
        outcome: None while it is under way.
        reason: why it ended so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    candidate: str
    incumbent: str
    policy: Policy
    step: int = 0
    since: float
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def last_step(self) -> int:
        """The step at which the candidate answers everybody."""
        return len(self.policy.shares) + 1

    @property
    def share(self) -> float:
        """Of the traffic that the candidate answers at this step."""
        return (0.0, *self.policy.shares, 1.0)[self.step]

    @property
    def step_name(self) -> str:
        """The step in words."""
        if self.step == 0:
            return "shadow"
        return "all traffic, watched" if self.step == self.last_step else f"canary, {self.share:.0%} of the traffic"


class Report(BaseModel):
    """What one replica says about itself.

    Attributes:
        replica: its name.
        time: when it wrote this, seconds since 1970.
        serving: the version that is its incumbent.
        release: id of the release that it measures, None where it measures none.
        step: of that release; `LOADING` before.
        figures: measured at that step.
        failure: why it cannot follow, such as a candidate that does not load.
    """

    model_config = ConfigDict(extra="forbid")

    replica: str
    time: float
    serving: str | None
    release: str | None = None
    step: int = 0
    figures: Figures = Field(default_factory=Figures)
    failure: str = ""


class Line:
    """A line of releases.

    Args:
        folder: one name of a registry, such as ``releases/shop``; made by the first `put`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(folder.parent)
        self.name = folder.name

    @property
    def exists(self) -> bool:
        """Whether it has a version that serves."""
        return (self.folder / POINTER).is_file()

    def current(self) -> str:
        """The version that serves.

        Raises:
            UserError: there is none.
        """
        return self.registry.get(self.name).version

    def path(self, version: str) -> Path:
        """The artifact of a version."""
        return self.registry.get(self.name, version).path

    def release(self) -> Release | None:
        """The release under way or the last one.

        Raises:
            ArtifactError: the file is damaged.
        """
        file = self.folder / RELEASE_FILE
        try:
            return Release.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            raise ArtifactError(f"{file}: not readable as a release ({error}); delete it, then deploy again") from error

    def write_release(self, release: Release) -> None:
        """Replace the release in one step.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._replace(self.folder / RELEASE_FILE, release.model_dump_json(indent=2))

    def log(self, version: str, event: str, reason: str = "", **figures: Any) -> None:
        """Add a line to the history."""
        line = {"time": time.time(), "version": version, "event": event, "reason": reason, **figures}
        file = self.folder / LOG_FILE
        try:
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise storage_error(file, error) from error

    def history(self) -> list[dict[str, Any]]:
        """All that happened, oldest first; a line that was cut by a crash is left out."""
        file = self.folder / LOG_FILE
        if not file.is_file():
            return []
        found = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found

    def report(self, report: Report) -> None:
        """Write what a replica measures.

        Raises:
            StorageError: the folder cannot be written.
        """
        (self.folder / REPLICAS).mkdir(parents=True, exist_ok=True)
        self._replace(self.folder / REPLICAS / f"{report.replica}.json", report.model_dump_json())

    def reports(self, now: float | None = None) -> list[Report]:
        """What living replicas measure."""
        now = time.time() if now is None else now
        return [report for report in self._all_reports() if now - report.time <= FRESH_S]

    def lost(self, now: float | None = None) -> list[Report]:
        """The last words of replicas that had loaded a candidate and report no more, since the endpoint started."""
        now = time.time() if now is None else now
        return [one for one in self._all_reports() if one.step != LOADING and now - one.time > FRESH_S]

    def silent(self, seconds: float) -> list[Report]:
        """The last words of replicas that report no more, of the last `seconds`."""
        now = time.time()
        return [report for report in self._all_reports() if FRESH_S < now - report.time <= seconds]

    def _all_reports(self) -> list[Report]:
        found = []
        for file in (self.folder / REPLICAS).glob("*.json"):
            try:
                found.append(Report.model_validate_json(file.read_bytes()))
            except (FileNotFoundError, ValidationError):  # it went away, or is of another version of this program
                continue
        return found

    def forget_replicas(self) -> None:
        """Remove the reports, when an endpoint starts."""
        shutil.rmtree(self.folder / REPLICAS, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process changes the line at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK_FILE).open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _replace(self, file: Path, text: str) -> None:
        beside = file.with_name(f".{file.name}-{os.getpid()}")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(file)
        except OSError as error:
            raise storage_error(file, error) from error


def line_of(folder: Path) -> Line | None:
    """The line that `folder` is; None where it is something else, such as a run."""
    return Line(folder.resolve()) if (folder / POINTER).is_file() else None


def finished(release: Release, outcome: Outcome, reason: str) -> Release:
    """The release at its end."""
    return release.model_copy(update={"outcome": outcome, "reason": reason})


def check_free(line: Line) -> None:
    """Raise UserError where a release is under way."""
    running = line.release()
    if running is not None and running.outcome is None:
        raise UserError(
            f"{line.folder}: the release of {running.candidate} is under way ({running.step_name}); wait for it, "
            f"or end it with `distilrec rollback {line.folder}`"
        )


def begin(line: Line, version: str, policy: Policy, now: float) -> Release:
    """Write the wish to release `version`; the caller holds the lock.

    Raises:
        UserError: another release is under way, or this version serves already.
    """
    check_free(line)
    incumbent = line.current()
    if incumbent == version:
        raise UserError(f"{line.folder}: {version} serves already")
    release = Release(
        id=f"{version}-{int(now * 1000)}", candidate=version, incumbent=incumbent, policy=policy, since=now
    )
    line.write_release(release)
    line.log(version, "shadow", f"against {incumbent}")
    return release
