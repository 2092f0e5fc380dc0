"""What commands print: tables for people on stderr, one JSON document on stdout, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.table import Table

from components.errors import DistilrecError
from pipelines.interrupt import Interrupted
from pipelines.plan import Decision


def messages() -> Console:
    """The console for everything that is no result."""
    return Console(stderr=True)


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
def quiet_stdout(active: bool) -> Iterator[None]:
    """Send all that libraries and worker processes print to stdout to stderr instead."""
    if not active:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def finish(action: Callable[[], Any], as_json: bool, resume: str = "the same command") -> int:
    """Do a command's work and turn its errors into a message and an exit code; with `as_json` print its result.

    Args:
        action: returns what ``--json`` prints.
        as_json: whether to print it.
        resume: what to run after an interruption.
    """
    try:
        with quiet_stdout(as_json):
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
