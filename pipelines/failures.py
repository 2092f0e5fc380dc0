"""From whatever a stage raised, possibly on another machine, to the one error that a person can act on."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    DistilrecError,
    ResourceError,
    StageError,
    StorageError,
    UserError,
)
from pipelines.cache import storage_problem, write_atomically

KEPT = (ConfigError, DataError, ResourceError, ArtifactError, StorageError)  # these say what to do; others need a log
MAX_REASON = 600


def failure(node: str, error: BaseException, run: Path) -> DistilrecError:
    """Write the traceback to the run's logs and return the error to show.

    Args:
        node: the node that failed.
        error: what its stage raised.
        run: the run folder.
    """
    log = run / "logs" / f"{node.replace('/', '--')}.log"
    log_note = _write_log(log, error)
    for cause in causes(error):
        for kind in KEPT:
            if isinstance(cause, kind):
                return kind(f"{node}: {_text(cause)}")
        if isinstance(cause, DistilrecError):
            shown = UserError if isinstance(cause, UserError) else StageError
            return shown(f"{node}: {_text(cause)}{log_note}")
        if isinstance(cause, OSError) and (full := storage_problem(cause, run)):
            return type(full)(f"{node}: {full}")
    root = list(causes(error))[-1]
    return StageError(f"{node}: {type(root).__name__}: {_text(root) or 'no message'}{log_note}")


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it wraps, outermost first; Ray's wrappers, whose texts are whole tracebacks, are left out."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        wrapped = _wrapped_by_ray(current)
        if not wrapped:
            yield current
        waiting += wrapped or ([current.__cause__] if current.__cause__ else [])


def joined(failures: Sequence[DistilrecError]) -> DistilrecError:
    """One error for all nodes that failed together; the first decides its kind."""
    first = failures[0]
    if len(failures) == 1:
        return first
    return type(first)("\n".join(str(error) for error in failures))


def _wrapped_by_ray(error: BaseException) -> list[BaseException]:
    workers = getattr(error, "worker_failures", None)  # ray.train.WorkerGroupError
    found = [getattr(error, "cause", None), *(workers.values() if isinstance(workers, dict) else ())]
    return [inner for inner in found if isinstance(inner, BaseException)]


def _text(error: BaseException) -> str:
    text = str(error).strip()
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def _write_log(log: Path, error: BaseException) -> str:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(log, "".join(traceback.format_exception(error)))
    except OSError as problem:
        return f" (the log {log} could not be written: {problem.strerror})"
    return f"; the log is {log}"
