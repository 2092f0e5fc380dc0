"""``distilrec deploy``, ``rollback`` and ``releases``: a line of releases, from the side of the person on call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.artifacts.registry import Registry
from components.errors import StageError, UserError
from pipelines.served import find_artifact
from serve.release.line import Line, Release, begin, check_free, finished
from serve.release.policy import Policy

POLL_S: Final = 0.25
SILENT_S: Final = 60.0  # after which replicas that report nothing are gone
Say = Callable[[str], None]


@dataclass(frozen=True)
class Deployed:
    """How a deployment ended.

    Attributes:
        line: its folder.
        version: of the new release.
        outcome: "released", "rejected", "rolled back" or "aborted".
        reason: in one sentence.
    """

    line: str
    version: str
    outcome: str
    reason: str


def deploy(run: Path, line_folder: Path, policy: Policy, say: Say, *, trial: bool = True) -> Deployed:
    """Register the artifact of `run` in a line and release it there: at once where nothing serves, else step by step.

    Args:
        run: a run or an artifact, see `pipelines.served.find_artifact`.
        line_folder: the line; it is made where it does not exist.
        policy: steps and bounds of the release.
        say: told what happens.
        trial: False releases without shadow and canary.

    Raises:
        UserError: no artifact there, a release is under way, or an endpoint that served a moment ago says nothing.
        ArtifactError: the artifact is corrupt or answers nothing; the line stays as it is.
        StageError: the endpoint stopped in the middle; the release goes on when it is started again.
    """
    from serve.loading import load  # here: it loads PyTorch, and a rollback must not wait for that

    artifact, line = find_artifact(run), Line(line_folder.absolute())
    load(artifact)
    with line.locked():
        if trial:
            check_free(line)  # before a copy is made
            _check_heard(line)
        version = _registered(line, artifact)
        if not line.exists or not trial or not line.reports():
            return _at_once(line, version, _why_at_once(line, trial))
        release = begin(line, version, policy, time.time())
    say(f"{version} is on trial against {release.incumbent}")
    return _followed(line, release, say)


def _check_heard(line: Line) -> None:
    """Replicas that were there a moment ago and report nothing now may be alive, and overloaded: what is released then
    would reach everybody without a trial.

    Raises:
        UserError: there are such.
    """
    silent = line.silent(SILENT_S)
    if silent and not line.reports():
        ago = time.time() - max(report.time for report in silent)
        raise UserError(
            f"{line.folder}: its endpoint reported {ago:.0f} s ago and is silent since; wait until it reports again or "
            f"is gone for {SILENT_S:.0f} s, or use --now to release without a trial"
        )


def _registered(line: Line, artifact: Path) -> str:
    """The version of the artifact in the line, which may have it already."""
    if artifact.parent == line.folder:
        return artifact.name
    release = line.registry.put(line.name, artifact, promote=False)
    line.log(release.version, "registered", f"from {artifact}")
    return release.version


def _why_at_once(line: Line, trial: bool) -> str:
    if not line.exists:
        return "the first release of this line"
    return "no endpoint serves this line, so there is no traffic to try it on" if trial else "without a trial, as asked"


def _at_once(line: Line, version: str, reason: str) -> Deployed:
    running = line.release()
    if running is not None and running.outcome is None:
        line.write_release(finished(running, "aborted", f"{version} was released instead"))
        line.log(running.candidate, "aborted", f"{version} was released instead")
    line.registry.promote(line.name, version)
    line.log(version, "released", reason)
    return Deployed(str(line.folder), version, "released", reason)


def _followed(line: Line, release: Release, say: Say) -> Deployed:
    """Wait for the end of the release and say every step."""
    step, seen_alive = -1, time.monotonic()
    while True:
        now = line.release()
        if now is None or now.id != release.id:
            raise StageError(f"{line.folder}: another release took the place of {release.candidate}")
        if now.step != step:
            step = now.step
            say(f"{release.candidate}: {now.step_name}")
        if now.outcome is not None:
            return Deployed(str(line.folder), release.candidate, now.outcome, now.reason)
        if line.reports():
            seen_alive = time.monotonic()
        elif time.monotonic() - seen_alive > 60:
            raise StageError(
                f"{line.folder}: its endpoint is gone; the release of {release.candidate} goes on when it is started "
                "again"
            )
        time.sleep(POLL_S)


def rollback(line_folder: Path, to: str = "") -> Deployed:
    """Let an older version serve again, and end a release that is under way.

    Args:
        line_folder: the line.
        to: the version; the one that served before if empty.

    Raises:
        UserError: no such line or version, or there is none before.
    """
    line = existing(line_folder)
    with line.locked():
        running, current = line.release(), line.current()
        if running is not None and running.outcome is None:
            line.write_release(finished(running, "aborted", "rolled back by hand"))
            line.log(running.candidate, "aborted", "rolled back by hand")
            target = to or running.incumbent
        else:
            target = to or _before(line, current)
        line.registry.promote(line.name, target)
        reason = f"rolled back by hand from {current}" if target != current else "the candidate was withdrawn by hand"
        line.log(target, "released", reason)
    return Deployed(str(line.folder), target, "released", reason)


def _before(line: Line, current: str) -> str:
    """The version that served before `current` did. Going back to one forgets what came after it: whoever goes back
    twice wants an older one, not the one that he came from."""
    served: list[str] = []
    for version in (entry["version"] for entry in line.history() if entry["event"] == "released"):
        served = [*served[: served.index(version)], version] if version in served else [*served, version]
    earlier = served[: served.index(current)] if current in served else served
    if not earlier:
        raise UserError(f"{line.folder}: nothing served before {current}; name a version with --to")
    return earlier[-1]


def existing(folder: Path) -> Line:
    """The line in `folder`.

    Raises:
        UserError: it is none.
    """
    line = Line(folder.absolute())
    if not line.exists:
        known = ", ".join(str(folder.parent / name) for name in Registry(folder.parent).names())
        raise UserError(
            f"{folder}: no line of releases; make one with `distilrec deploy RUN --line {folder}`"
            + (f", or take one of: {known}" if known else "")
        )
    return line


def overview(line_folder: Path) -> dict[str, Any]:
    """Everything that `distilrec releases` shows: versions, the release under way, the history.

    Raises:
        UserError: it is no line.
    """
    line = existing(line_folder)
    running = line.release()
    versions = []
    for release in line.registry.releases(line.name):
        manifest = release.manifest
        model = manifest.get("model")
        name = model.get("name") if isinstance(model, dict) else None
        versions.append({"version": release.version, "model": name, "current": release.current})
    under_way = running if running is not None and running.outcome is None else None
    return {
        "line": str(line.folder),
        "versions": versions,
        "under_way": {"version": under_way.candidate, "step": under_way.step_name} if under_way else None,
        "replicas": [{"replica": report.replica, "serving": report.serving} for report in line.reports()],
        "history": line.history(),
    }
