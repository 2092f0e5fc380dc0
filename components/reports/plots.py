"""The pictures of the report: plain values in, a `Picture` out, or None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from components.evaluation.slices import SLICES
from components.reports.svg import COLORS, GRID, INK, MUTED, NUM_COLORS, Picture, picture

KIND_COLORS: Final = {"student": COLORS[0], "teacher": COLORS[1], "baseline": COLORS[-1]}
KIND_MARKS: Final = {"student": "o", "teacher": "s", "baseline": "^"}
MAX_LINES: Final = NUM_COLORS  # more series than colors cannot be told apart
POINTS_HIGH: Final = 150.0  # height of the range of values in a scatter plot
LABEL_GAP: Final = 13.0  # points between two names
PLAIN_NUMBERS: Final = FuncFormatter(lambda value, _: f"{value:,.10g}")  # 1,000 and 0.01 instead of powers of ten
Row = Mapping[str, Any]


def series_colors(names: Iterable[str]) -> dict[str, str]:
    """One color per model, the same in every picture of a report; colors repeat where they do not suffice."""
    return {name: COLORS[number % NUM_COLORS] for number, name in enumerate(names)}


def metric_title(name: str) -> str:
    """The name of a metric as people write it.

    >>> metric_title("ndcg@10"), metric_title("recall@5"), metric_title("mrr@20")
    ('NDCG@10', 'Recall@5', 'MRR@20')
    """
    return name.replace("recall", "Recall") if name.startswith("recall") else name.upper()


def metric_bars(rows: Sequence[Row], metrics: Sequence[str]) -> Picture | None:
    """One panel per metric; bars with 95 % intervals over users, in the order of the leaderboard."""
    if not rows:
        return None

    def draw(axes: list[Axes]) -> None:
        for axis, metric in zip(axes, metrics, strict=True):
            _bars(axis, rows, metric)
            if axis is not axes[0]:
                axis.tick_params(labelleft=False)
        _kind_legend(axes[-1], {row["kind"] for row in rows})

    best = rows[0]
    alt = (
        f"Bars of {' and '.join(map(metric_title, metrics))} for {len(rows)} models with 95 % intervals;"
        f" {best['name']} leads with {metric_title(metrics[0])} {best['metrics'][metrics[0]]:.4f}."
    )
    caption = "Mean over users; the thin line is the 95 % bootstrap interval over users."
    height = 0.9 + 0.32 * len(rows)
    return picture("Ranking quality", alt, draw, panels=len(metrics), height=height, caption=caption)


def _bars(axis: Axes, rows: Sequence[Row], metric: str) -> None:
    values = [row["metrics"][metric] for row in rows]
    places = range(len(rows))
    axis.barh(places, values, height=0.62, color=[KIND_COLORS[row["kind"]] for row in rows])
    for place, row in zip(places, rows, strict=True):
        low, high = row["interval"][metric]
        axis.plot([low, high], [place, place], color=INK, linewidth=1.2)
        axis.annotate(
            f"{row['metrics'][metric]:.4f}", (high, place), (5, 0), textcoords="offset points", va="center", color=MUTED
        )
    axis.set_yticks(list(places), [row["name"] for row in rows])
    axis.set_xlim(0, 1.18 * max([row["interval"][metric][1] for row in rows] + [1e-9]))
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_title(metric_title(metric))


def _kind_legend(axis: Axes, kinds: set[str]) -> None:
    shown = [kind for kind in KIND_COLORS if kind in kinds]
    handles = [axis.plot([], [], "s", color=KIND_COLORS[kind])[0] for kind in shown]
    axis.legend(handles, shown, loc="lower right")


def training_curves(
    curves: Mapping[str, Sequence[Sequence[Row]]], metric: str, colors: Mapping[str, str]
) -> Picture | None:
    """Loss and validation metric over epochs; the seeds of one model share a color.

    Args:
        curves: for every model the epochs of each of its seeds.
        metric: name of the validation metric within an epoch.
        colors: by model, see `series_colors`.
    """
    shown = {name: runs for name, runs in curves.items() if any(runs)}
    if not shown:
        return None
    drawn = dict(list(shown.items())[:MAX_LINES])

    def draw(axes: list[Axes]) -> None:
        for name, runs in drawn.items():
            for number, epochs in enumerate(runs):
                _curve(axes[0], epochs, "loss", colors[name], None)
                _curve(axes[1], epochs, metric, colors[name], name if number == 0 else None)
        axes[0].set_title("Training loss")
        axes[1].set_title(f"{metric_title(metric.removeprefix('valid_'))} on the validation part")
        for axis in axes:
            axis.set_xlabel("epoch")
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    left_out = len(shown) - len(drawn)
    alt = f"Lines of training loss and validation quality over epochs for {', '.join(drawn)}."
    more = f" {left_out} more models are not drawn." if left_out else ""
    caption = f"One line per seed. Losses of different models are not comparable, validation quality is.{more}"
    return picture("Training", alt, draw, panels=2, caption=caption)


def _curve(axis: Axes, epochs: Sequence[Row], key: str, color: str, label: str | None) -> None:
    points = [(epoch["epoch"], epoch[key]) for epoch in epochs if epoch.get(key) is not None]
    mark = "o" if len(points) == 1 else None
    axis.plot([x for x, _ in points], [y for _, y in points], color=color, linewidth=1.6, marker=mark, label=label)


def quality_against_cost(rows: Sequence[Row], metric: str) -> Picture | None:
    """Quality over the size of the artifact and, where it was measured, over the latency of one request."""
    sized = [(row["bytes"] / 1e6, row) for row in rows if row.get("bytes")]
    timed = [(row["latency_ms"]["p50"], row) for row in rows if row.get("latency_ms")]
    panels = [(points, title) for points, title in ((sized, "size in MB"), (timed, "median latency in ms")) if points]
    if not panels:
        return None

    def draw(axes: list[Axes]) -> None:
        for axis, (points, title) in zip(axes, panels, strict=True):
            _scatter(axis, points, metric)
            axis.set_xlabel(f"{title} (log scale)")
        axes[0].set_ylabel(metric_title(metric))

    alt = f"{metric_title(metric)} of every model against {' and against '.join(title for _, title in panels)}."
    caption = "Up and to the left is better. Latency: one request, one thread, the ten best of all items."
    return picture("Quality against cost", alt, draw, panels=len(panels), height=3.6, caption=caption)


def _scatter(axis: Axes, points: Sequence[tuple[float, Row]], metric: str) -> None:
    heights = [row["metrics"][metric] for _, row in points]
    span = max(heights) - min(heights) or max(heights) or 1.0
    axis.set_ylim(min(heights) - 0.12 * span, max(heights) + 0.12 * span)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(PLAIN_NUMBERS)
    axis.xaxis.set_minor_formatter(NullFormatter())
    labels = spread(heights, LABEL_GAP / POINTS_HIGH * span)
    for (cost, row), height, label in zip(points, heights, labels, strict=True):
        axis.plot([cost], [height], KIND_MARKS[row["kind"]], color=KIND_COLORS[row["kind"]], markersize=8)
        axis.annotate(
            row["name"],
            (cost, height),
            (10, (label - height) / span * POINTS_HIGH),
            textcoords="offset points",
            va="center",
            color=INK,
            arrowprops={"arrowstyle": "-", "color": GRID, "shrinkA": 0, "shrinkB": 5},
        )
    costs = [cost for cost, _ in points]
    axis.set_xlim(min(costs) / 1.5, max(costs) * 4.0)  # room for the names


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights up so that neighbors are at least `gap` apart, then center the result; keeps the order.

    >>> spread([0.0, 0.0, 5.0], 1.0)
    [-0.5, 0.5, 5.0]
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _bottom(groups[-1], heights, gap) < _top(groups[-2], heights, gap) + gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = list(heights)
    for group in groups:
        for step, index in enumerate(group):
            placed[index] = _bottom(group, heights, gap) + step * gap
    return placed


def _bottom(group: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return sum(heights[index] for index in group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return _bottom(group, heights, gap) + gap * (len(group) - 1)


def teacher_weights(distillations: Mapping[str, Row], colors: Mapping[str, str]) -> Picture | None:
    """Per distilled variant: how much each teacher counted, and how often it was dropped.

    Args:
        distillations: by variant, the content of ``distillation.json``.
        colors: by model, see `series_colors`.
    """
    shown = {name: facts for name, facts in list(distillations.items())[:MAX_LINES] if facts.get("teachers")}
    if not shown:
        return None
    teachers = list(dict.fromkeys(teacher for facts in shown.values() for teacher in facts["teachers"]))

    def draw(axes: list[Axes]) -> None:
        for axis, key, title in (
            (axes[0], "mean_weights", "Mean weight (mark: before consistency)"),
            (axes[1], "dropped", "Share of cases in which it was dropped"),
        ):
            _grouped(axis, shown, teachers, key, colors)
            axis.set_title(title)
        for number, facts in enumerate(shown.values()):
            _marks(axes[0], facts.get("base_weights", {}), teachers, _offset(number, len(shown)))
        axes[1].tick_params(labelleft=False)
        axes[1].xaxis.set_major_formatter(PercentFormatter(1.0))
        if len(shown) > 1:
            axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    alt = "Bars of the weight and of the dropped share of each teacher: " + "; ".join(
        f"{name}: " + ", ".join(f"{t} dropped {facts.get('dropped', {}).get(t, 0):.0%}" for t in facts["teachers"])
        for name, facts in shown.items()
    )
    height = 0.9 + 0.3 * len(teachers) * max(1.0, 0.5 * len(shown))
    caption = "A teacher is dropped for a case where its ranking contradicts the consensus by more than the threshold."
    return picture("Teachers", alt, draw, panels=2, height=height, caption=caption)


def _offset(number: int, count: int) -> float:
    return 0.8 * ((number + 0.5) / count - 0.5)


def _grouped(
    axis: Axes, shown: Mapping[str, Row], teachers: Sequence[str], key: str, colors: Mapping[str, str]
) -> None:
    size = 0.8 / len(shown)
    for number, (name, facts) in enumerate(shown.items()):
        places = [place + _offset(number, len(shown)) for place in range(len(teachers))]
        values = [facts.get(key, {}).get(teacher, 0.0) for teacher in teachers]
        axis.barh(places, values, height=0.85 * size, color=colors[name], label=name)
    axis.set_yticks(range(len(teachers)), teachers)
    axis.set_ylim(len(teachers) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.grid(visible=False, axis="y")


def _marks(axis: Axes, weights: Row, teachers: Sequence[str], offset: float) -> None:
    for place, teacher in enumerate(teachers):
        if teacher in weights:
            axis.plot([weights[teacher]], [place + offset], "|", color=INK, markersize=12, markeredgewidth=1.6)


def data_shape(data: Row) -> Picture | None:
    """Item frequency over rank, and the lengths of users' sequences.

    Args:
        data: ``item_frequency`` {rank, count} and ``sequence_lengths`` {start, users}, see `components.reports.facts`.
    """
    frequency, lengths = data.get("item_frequency"), data.get("sequence_lengths")
    if not frequency or not lengths:
        return None

    def draw(axes: list[Axes]) -> None:
        axes[0].loglog(frequency["rank"], frequency["count"], color=COLORS[0], linewidth=2)
        for scale in (axes[0].xaxis, axes[0].yaxis):
            scale.set_major_formatter(PLAIN_NUMBERS)
            scale.set_minor_formatter(NullFormatter())
        axes[0].set(title="Item frequency", xlabel="item, most frequent first", ylabel="training interactions")
        places = range(len(lengths["start"]))
        axes[1].bar(places, lengths["users"], color=COLORS[0], width=0.85)
        step = max(1, len(lengths["start"]) // 8)
        axes[1].set_xticks(list(places)[::step], [str(start) for start in lengths["start"]][::step])
        axes[1].set(title="Sequence length", xlabel="interactions of a user (bar starts at)", ylabel="users")
        axes[1].grid(visible=False, axis="x")

    alt = (
        f"Left: the most frequent item has {frequency['count'][0]} training interactions,"
        f" the last of {frequency['rank'][-1]} has {frequency['count'][-1]}."
        f" Right: histogram of the lengths of {sum(lengths['users'])} users' sequences."
    )
    return picture("The data", alt, draw, panels=2)


def slice_bars(rows: Sequence[Row], metric: str, baseline: str | None, colors: Mapping[str, str]) -> Picture | None:
    """The metric within each slice, for the best models and the baseline."""
    shown = list(rows[:5]) + [row for row in rows[5:] if row["name"] == baseline]
    names = [name for name in SLICES if shown and (shown[0].get("slices") or {}).get(name, {}).get("users")]
    if not names:
        return None

    def draw(axes: list[Axes]) -> None:
        axis, size = axes[0], 0.8 / len(shown)
        for number, row in enumerate(shown):
            places = [place + _offset(number, len(shown)) for place in range(len(names))]
            values = [row["slices"][name].get(metric, 0.0) for name in names]
            axis.bar(places, values, width=0.85 * size, color=colors[row["name"]], label=row["name"])
        users = [shown[0]["slices"][name]["users"] for name in names]
        labels = [f"{name.replace('_', ' ')}\n{count:,} users" for name, count in zip(names, users, strict=True)]
        axis.set_xticks(range(len(names)), labels)
        axis.set_ylabel(metric_title(metric))
        axis.grid(visible=False, axis="x")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    alt = f"{metric_title(metric)} of {', '.join(row['name'] for row in shown)} within {', '.join(names)}."
    return picture("Slices", alt, draw, caption="A mean over all users may hide a group for whom the model fails.")
