"""The pictures of a study: one document in, one `Picture` out, or None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from components.reports.plots import PLAIN_NUMBERS, metric_bars, metric_title
from components.reports.study.cells import MAIN_METRIC, SHORT
from components.reports.svg import COLORS, INK, MUTED, Picture, picture

RATIOS: Final = {"training": "time of training", "inference": "time of inference", "memory": "memory of inference"}
PLAIN_COLOR, TAUGHT_COLOR = COLORS[-1], COLORS[0]
Row = Mapping[str, Any]


def study_picture(document: Row) -> Picture | None:
    """The picture of one document.

    Args:
        document: what `pipelines.study` writes as ``TABLE.json``.
    """
    sections = {title: [row for row in rows if _has_numbers(row)] for title, rows in document["sections"].items()}
    sections = {title: rows for title, rows in sections.items() if rows}
    if not sections:
        return None
    first = next(iter(sections.values()))
    match document["table"]:
        case "cost":
            return _costs(first)
        case "students":
            return _pairs(first)
        case "sweeps":
            return _sweeps(sections)
    return metric_bars(sorted(first, key=lambda row: -row["metrics"][MAIN_METRIC]), SHORT[::-1])


def _has_numbers(row: Row) -> bool:
    return bool(row.get("metrics") or row.get("ratio"))


def _costs(rows: Sequence[Row]) -> Picture:
    def draw(axes: list[Axes]) -> None:
        for axis, (key, title) in zip(axes, RATIOS.items(), strict=True):
            for place, row in enumerate(rows):
                value = row["ratio"].get(key)
                if value is not None:
                    axis.barh(place, value, height=0.62, color=COLORS[1] if row["kind"] == "teacher" else COLORS[0])
                text = "not measured" if value is None else f"{value:.2f}"
                axis.annotate(text, (value or 0, place), (4, 0), textcoords="offset points", va="center", color=MUTED)
            axis.axvline(1, color=INK, linewidth=0.8)
            axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
            axis.set_xlim(0, 1.25 * max([row["ratio"].get(key) or 0 for row in rows] + [1]))
            axis.set_title(title)
            axis.invert_yaxis()
            axis.grid(visible=False, axis="y")
            if axis is not axes[0]:
                axis.tick_params(labelleft=False)

    alt = "Bars of what each model costs relative to the plain student: " + "; ".join(
        f"{row['name']} " + ", ".join(f"{RATIOS[key]} {value:.2f}" for key, value in row["ratio"].items())
        for row in rows
    )
    caption = "The plain student is 1; shorter is cheaper."
    return picture("Cost", alt, draw, panels=len(RATIOS), height=0.9 + 0.32 * len(rows), caption=caption)


def _pairs(rows: Sequence[Row]) -> Picture:
    """Two bars per student: alone, and after the teachers."""
    alone = {row["name"]: row for row in rows if not row["against"]}
    after = {row["against"]: row for row in rows if row["against"]}
    names = list(dict.fromkeys([*alone, *after]))

    def draw(axes: list[Axes]) -> None:
        axis = axes[0]
        for offset, known, label, color in (
            (-0.2, alone, "alone", PLAIN_COLOR),
            (0.2, after, "after the teachers", TAUGHT_COLOR),
        ):
            found = [(place, known[name]) for place, name in enumerate(names) if name in known]
            heights = [row["metrics"][MAIN_METRIC] for _, row in found]
            axis.bar([place + offset for place, _ in found], heights, width=0.36, color=color, label=label)
            for place, row in found:
                axis.plot([place + offset] * 2, row["interval"][MAIN_METRIC], color=INK, linewidth=1.2)
        axis.set_xticks(range(len(names)), names)
        axis.set_ylabel(metric_title(MAIN_METRIC))
        axis.grid(visible=False, axis="x")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    alt = f"Bars of {metric_title(MAIN_METRIC)}, alone and after the teachers, of {', '.join(names)}."
    return picture(
        "Students", alt, draw, caption="Mean over users and seeds; the line is the 95 % interval over users."
    )


def _sweeps(sections: Mapping[str, Sequence[Row]]) -> Picture | None:
    panels = {title: rows for title, rows in sections.items() if any(row["value"] is not None for row in rows)}
    if not panels:
        return None

    def draw(axes: list[Axes]) -> None:
        for axis, (title, rows) in zip(axes, panels.items(), strict=True):
            fixed = next((row for row in rows if row["value"] is None), None)
            if fixed:
                axis.axhline(fixed["metrics"][MAIN_METRIC], color=PLAIN_COLOR, linewidth=1.6, label="alone")
            varied = [row for row in rows if row["value"] is not None]
            _line(axis, [row for row in varied if not row["against"]], PLAIN_COLOR, "alone")
            _line(axis, [row for row in varied if row["against"]], TAUGHT_COLOR, "after the teachers")
            axis.set_xscale("symlog" if any(row["value"] == 0 for row in varied) else "log")
            axis.set_xticks([row["value"] for row in varied])
            axis.xaxis.set_major_formatter(PLAIN_NUMBERS)
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.tick_params(axis="x", labelrotation=60)
            axis.set_xlabel(title)
        axes[0].set_ylabel(metric_title(MAIN_METRIC))
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    alt = f"Lines of {metric_title(MAIN_METRIC)} over {', '.join(panels)}, alone and after the teachers."
    return picture("Sweeps", alt, draw, panels=len(panels), caption="Mean over users and seeds.")


def _line(axis: Axes, rows: Sequence[Row], color: str, label: str) -> None:
    if rows:
        rows = sorted(rows, key=lambda row: row["value"])
        points = [(row["value"], row["metrics"][MAIN_METRIC]) for row in rows]
        axis.plot([x for x, _ in points], [y for _, y in points], color=color, marker="o", linewidth=1.6, label=label)
