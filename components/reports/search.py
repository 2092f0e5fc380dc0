"""What a search found: the picture of its front, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from rich.table import Table

from components.reports.plots import PLAIN_NUMBERS
from components.reports.svg import COLORS, INK, MUTED, Picture, picture

COSTS: Final = {"bytes": "stored bytes in MB", "latency_ms": "median latency in ms"}
LIMITS: Final = {"bytes": "max_bytes", "latency_ms": "max_latency_ms"}
Student = Mapping[str, Any]


def front_picture(document: Mapping[str, Any]) -> Picture | None:
    """Every finished student, those on the Pareto front in color, the winner named; None without any.

    Args:
        document: what `pipelines.search` writes as ``search.json``; empty where a run has no search.
    """
    if not document:
        return None
    done = [student for student in document["students"] if student["state"] == "done"]
    winner = document["winner"]["number"]

    def draw(axes: list[Axes]) -> None:
        for axis, (cost, title) in zip(axes, COSTS.items(), strict=True):
            _scatter(axis, done, cost, winner)
            limit = document["budget"][LIMITS[cost]]
            if limit is not None:
                axis.axvline(_shown(limit, cost), color=MUTED, linestyle="--", linewidth=1)
            axis.set_xlabel(f"{title} (log scale)")
        axes[0].set_ylabel("validation NDCG@10")

    front = sum(student["front"] for student in done)
    alt = f"Validation NDCG@10 of {len(done)} students against bytes and latency; {front} lie on the Pareto front."
    caption = "Up and to the left is better. Blue: no other student is better in one and not worse in the rest."
    return picture("What the search found", alt, draw, panels=len(COSTS), height=3.6, caption=caption)


def _scatter(axis: Axes, students: Sequence[Student], cost: str, winner: int) -> None:
    for student in students:
        color = COLORS[0] if student["front"] else MUTED
        axis.scatter(
            _shown(student[cost], cost), student["best"], s=26, color=color, zorder=3 if student["front"] else 2
        )
        if student["number"] == winner:
            place = (_shown(student[cost], cost), student["best"])
            axis.annotate("winner", place, (5, 4), textcoords="offset points", color=INK)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(PLAIN_NUMBERS)
    axis.xaxis.set_minor_formatter(NullFormatter())


def _shown(value: float, cost: str) -> float:
    return value / 1e6 if cost == "bytes" else value


def front_table(document: Mapping[str, Any]) -> Table:
    """The Pareto front, smallest student first, and what its students have that the search varied."""
    front = [student for student in document["students"] if student["number"] in document["front"]]
    front.sort(key=lambda student: (student["bytes"], -student["best"]))
    keys = [key for key in front[0]["values"] if len({str(student["values"][key]) for student in front}) > 1]
    table = Table(title=f"Pareto front of {len(document['students'])} students", title_justify="left")
    for column in ("student", "NDCG@10", "parameters", "bytes", "ms"):
        table.add_column(column, justify="right")
    table.add_column("what differs", overflow="fold")
    for student in front:
        mark = "*" if student["number"] == document["winner"]["number"] else ""
        differs = ", ".join(f"{key.rsplit('.', 1)[-1]} {_value(student['values'][key])}" for key in keys)
        numbers = (f"{student['best']:.4f}", f"{student['parameters']:,}", f"{student['bytes']:,}")
        table.add_row(f"{mark}{student['number']}", *numbers, f"{student['latency_ms']:.3f}", differs)
    return table


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
