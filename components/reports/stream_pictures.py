"""The pictures of streams: quality over the stream, by frequency (Figure 4), and sizes by frequency (Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes

from components.reports.plots import series_colors
from components.reports.stream import LOSS
from components.reports.stream_paper import NAMES
from components.reports.svg import Picture, picture

SMOOTHED: Final = 4  # neighbors on each side that a point of Figure 4 is averaged with, weighted by their ratings
Row = Mapping[str, Any]
Values = Sequence[float | None]


def stream_pictures(document: Row) -> dict[str, Picture]:
    """Pictures by name, per task; none where there is nothing to draw."""
    found = {}
    for task in dict.fromkeys(row["task"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["task"] == task]
        found[f"over-time-{task}"] = _over_time(rows, task)
        for metric in ("accuracy", "loss"):
            found[f"by-frequency-{metric}-{task}"] = _by_frequency(rows, task, metric)
        chosen = [row for row in rows if row["memory"]["users"]["sizes"]]
        if chosen:
            found[f"sizes-{task}"] = _sizes(chosen, task)
    return found


def _over_time(rows: Sequence[Row], task: str) -> Picture:
    names = [_title(row) for row in rows]
    colors = series_colors(names)

    def draw(axes: list[Axes]) -> None:
        for row, name in zip(rows, names, strict=True):
            until = row["windows"]["until"]
            _line(axes[0], until, [_percent(one) for one in row["windows"]["accuracy"]], colors[name], name)
            _line(axes[1], until, row["windows"]["loss"], colors[name], None)
        axes[0].set(title="Accuracy in percent", xlabel="ratings")
        axes[1].set(title=f"{LOSS[task]} loss", xlabel="ratings")
        axes[0].legend()

    alt = f"Accuracy and loss of {', '.join(names)} over the stream, {task}."
    return picture(f"Over the stream, {task}", alt, draw, panels=2)


def _by_frequency(rows: Sequence[Row], task: str, metric: str) -> Picture:
    names = [_title(row) for row in rows]
    colors = series_colors(names)

    def draw(axes: list[Axes]) -> None:
        for axis, side in zip(axes, ("users", "items"), strict=True):
            for row, name in zip(rows, names, strict=True):
                curve = row["by_frequency"][side]
                values = smoothed(curve[metric], curve["rows"])
                shown = [_percent(one) for one in values] if metric == "accuracy" else values
                _line(axis, range(1, len(shown) + 1), shown, colors[name], name)
            label = "accuracy in percent" if metric == "accuracy" else f"{LOSS[task]} loss"
            axis.set(title=side.capitalize(), xlabel="frequency", ylabel=label)
        axes[0].legend()

    alt = f"{metric.capitalize()} of {', '.join(names)} for users and items of frequency 1 to 100, {task}."
    caption = f"Test part; means over {2 * SMOOTHED + 1} neighboring frequencies, weighted by their ratings."
    title = f"{metric.capitalize()} by frequency, {task} (Figure 4)"
    return picture(title, alt, draw, panels=2, caption=caption)


def _sizes(rows: Sequence[Row], task: str) -> Picture:
    names = [_title(row) for row in rows]
    colors = series_colors(names)

    def draw(axes: list[Axes]) -> None:
        for axis, side in zip(axes, ("users", "items"), strict=True):
            for row, name in zip(rows, names, strict=True):
                sizes = row["by_frequency"][side]["size"][:50]
                _line(axis, range(1, len(sizes) + 1), sizes, colors[name], name)
            axis.set(title=side.capitalize(), xlabel="frequency", ylabel="mean embedding size")
        axes[0].legend()

    alt = f"Mean embedding size of users and items of frequency 1 to 50: {', '.join(names)}, {task}."
    return picture(f"Sizes by frequency, {task} (Figure 5)", alt, draw, panels=2)


def smoothed(values: Values, weights: Values) -> list[float | None]:
    """Weighted means over neighbors; None where none of them has a value.

    >>> smoothed([1.0, None, 3.0], [1, 0, 3])
    [2.5, 2.5, 2.5]
    """
    found: list[float | None] = []
    for place in range(len(values)):
        near = slice(max(0, place - SMOOTHED), place + SMOOTHED + 1)
        pairs = [(v, w) for v, w in zip(values[near], weights[near], strict=True) if v is not None and w]
        total = sum(w for _, w in pairs)
        found.append(sum(v * w for v, w in pairs) / total if total else None)
    return found


def _line(axis: Axes, places: Sequence[int], values: Values, color: str, label: str | None) -> None:
    known = [(x, y) for x, y in zip(places, values, strict=True) if y is not None]
    axis.plot([x for x, _ in known], [y for _, y in known], color=color, linewidth=1.6, label=label)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _title(row: Row) -> str:
    return NAMES.get(row["name"], str(row["name"]))
