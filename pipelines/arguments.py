"""Arguments and options that several commands share, and how a command ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file such as configs/demo.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[key=value]…", help="Overrides; the value is YAML.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder such as runs/demo.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; write nothing.")]
From = Annotated[str, typer.Option("--from", metavar="STAGE", help="Run this stage and all that depends on it again.")]


def finish(action: Callable[[], Any], as_json: bool) -> None:
    """Run a command; what it returns is the document of ``--json``.

    Raises:
        typer.Exit: always, with the exit code.
    """
    from pipelines import output

    raise typer.Exit(output.finish(action, as_json))


def act(action: Callable[[], None]) -> None:
    """Run a command that prints its own result."""
    finish(action, as_json=False)
