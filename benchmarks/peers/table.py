"""Show a contest's document on the terminal and write it as JSON."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.environments import PEERS, ROOT, is_ready
from benchmarks.peers.contest import CACHE

DATA_VARIABLE = "DISTILREC_DATA"


def console() -> Console:
    """Where tables and notes go; wide enough for the tables where the output is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=120)


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get(DATA_VARIABLE, ROOT.parent / "shared" / "data")),
        help=f"folder of the real data sets; default: {DATA_VARIABLE}",
    )
    made.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds; default: {rounds}")
    made.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)), help="core to which all are pinned")
    made.add_argument("--json", type=Path, default=None, help="write everything that was measured to this file")
    made.add_argument("--seed", type=int, default=0)
    return made


def add_peers(made: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    """The option that chooses peers."""
    made.add_argument(
        "--peers",
        nargs="*",
        choices=names,
        default=list(names),
        help="default: all; `python -m benchmarks.environments` installs them",
    )


def installed(names: list[str]) -> tuple[list[str], list[str]]:
    """(there, missing) of the environments `names`, each once."""
    wanted = [name for name in PEERS if name in names]
    return [name for name in wanted if is_ready(name)], [name for name in wanted if not is_ready(name)]


def number(value: float) -> str:
    """A readable figure: three digits, thousands apart.

    >>> number(33712.4), number(3.456), number(0.71234)
    ('33,712', '3.46', '0.712')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def spread_text(spread: dict[str, float] | None) -> str:
    """median (min to max)."""
    if spread is None:
        return "-"
    return f"{number(spread['median'])} ({number(spread['min'])} to {number(spread['max'])})"


def show(document: dict[str, Any], title: str) -> None:
    """Print the table of one contest."""
    screen = console()
    table = Table(title=title)
    for column in ("contender", document["unit"], "peak MB", "MB in rounds", "ours / theirs", "of their memory"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, row in document["contenders"].items():
        compared = document["ours_over_theirs"].get(name)
        if row["failure"]:
            table.add_row(name, "failed", "-", "-", "-", "-")
            continue
        table.add_row(
            name,
            spread_text(row["rate"]),
            number(row["peak_mb"]),
            number(row["work_peak_mb"]),
            spread_text(compared["rate"]) if compared else "-",
            number(compared["peak_memory"]) if compared else "-",
        )
    screen.print(table)
    for name, row in document["contenders"].items():
        if row["failure"]:
            screen.print(f"{name}: {row['failure']}", markup=False)
    where = document["machine"]
    screen.print(
        f"{where['cpu']}, {where['cores']} cores, load {where['load_at_start']} at the start; "
        f"median (min to max) over rounds",
        markup=False,
    )


def write(documents: Any, path: Path | None) -> None:
    """Write JSON where it was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(documents, indent=1), encoding="utf-8")


def logs(name: str) -> Path:
    """Where the workers of one benchmark log."""
    return CACHE / "logs" / name
