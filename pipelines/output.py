"""What commands print: tables for people on stderr, one JSON document on stdout, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from components.errors import DistilrecError
from pipelines.interrupt import Interrupted
from pipelines.plan import Decision

PIPE_WIDTH: Final = 140  # columns of a table that no terminal shows


def messages() -> Console:
    """The console for everything that is no result."""
    return Console(stderr=True)


def results() -> Console:
    """The console for results: stdout, wide enough for a leaderboard where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def write_json(document: Any) -> None:
    """Write the one JSON document of a command to stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def decision_table(decisions: Sequence[Decision]) -> Table:
    """What runs, what is skipped, and why."""
    table = Table(title="Plan", title_justify="left")
    for name in ("node", "", "reason"):
        table.add_column(name, overflow="fold")
    for decision in decisions:
        style = "bold" if decision.run else "dim"
        table.add_row(decision.node, "run" if decision.run else "skip", decision.reason, style=style)
    return table


@contextmanager
def streams_to(log: Path) -> Iterator[Console]:
    """Send all that libraries print, their C++ parts included, to `log`; yields the console that people still see."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    with log.open("ab") as file:
        for number in saved:
            os.dup2(file.fileno(), number)
    try:
        with os.fdopen(os.dup(saved[2]), "w", encoding="utf-8") as seen, _python_streams_to(log):
            yield Console(file=seen)
    finally:
        for number, original in saved.items():
            os.dup2(original, number)
            os.close(original)


@contextmanager
def _python_streams_to(log: Path) -> Iterator[None]:
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def finish(action: Callable[[], Any], as_json: bool, resume: str = "the same command") -> int:
    """Do a command's work and turn its errors into a message and an exit code; with `as_json` print its result.

    Args:
        action: returns what ``--json`` prints.
        as_json: whether to print it.
        resume: what to run after an interruption.
    """
    try:
        document = action()
    except DistilrecError as error:
        messages().print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        if as_json:
            write_json({"error": {"code": error_code(error), "message": str(error)}})
        return error.exit_code
    except Interrupted as stop:
        messages().print(f"\nstopped by {stop}; nothing is lost, {resume} goes on from here", highlight=False)
        _leave(stop.exit_code)
    if as_json:
        write_json(document)
    return 0


def error_code(error: DistilrecError) -> str:
    """The error's kind in snake case.

    >>> from components.errors import ConfigError
    >>> error_code(ConfigError("…"))
    'config_error'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()


def _leave(code: int) -> None:
    """End the process although threads of stages may still run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
