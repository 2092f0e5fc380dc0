"""The leaderboard as a table for the terminal, and the texts that the HTML report shares with it."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.evaluation.leaderboard import main_metric
from components.evaluation.significance import stars
from components.reports.plots import metric_title

MODEL: Final = "model"
KIND: Final = "kind"
PARAMETERS: Final = "parameters"
SIZE: Final = "size"
LATENCY: Final = "ms p50 / p99"
SECONDS: Final = "s/epoch"
COSTS: Final = (PARAMETERS, SIZE, LATENCY, SECONDS)
Row = Mapping[str, Any]


def shown_metrics(leaderboard: Mapping[str, Any]) -> list[str]:
    """The metrics that a table shows: Recall, NDCG and MRR at the main cutoff.

    >>> shown_metrics({"cutoffs": [5, 10]})
    ['recall@10', 'ndcg@10', 'mrr@10']
    """
    cutoff = main_metric(leaderboard["cutoffs"]).partition("@")[2]
    return [f"{name}@{cutoff}" for name in ("recall", "ndcg", "mrr")]


def metric_text(row: Row, metric: str) -> str:
    """The mean, with the deviation over seeds where there are several.

    >>> metric_text({"metrics": {"ndcg@10": 0.0651}, "std": {"ndcg@10": 0.0004}, "seeds": [0, 1]}, "ndcg@10")
    '0.0651 ±.0004'
    """
    text = f"{row['metrics'][metric]:.4f}"
    return f"{text} ±{row['std'][metric]:.4f}".replace("±0.", "±.") if len(row["seeds"]) > 1 else text


def gain_text(row: Row, metric: str) -> str:
    """Gain relative to the baseline with significance stars; empty for the baseline itself.

    >>> gain_text({"gain": {"ndcg@10": {"relative": 0.1032}}, "p_value": {"ndcg@10": 0.0002}}, "ndcg@10")
    '+10.3 % ***'
    """
    gain = (row.get("gain") or {}).get(metric)
    if not gain or gain["relative"] is None:
        return ""
    return f"{100 * gain['relative']:+.1f} % {stars(row['p_value'].get(metric))}".rstrip()


def size_text(number: float) -> str:
    """Bytes for people.

    >>> size_text(0), size_text(4300), size_text(1_800_000)
    ('0 B', '4.3 kB', '1.8 MB')
    """
    for border, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= border:
            return f"{number / border:.1f} {unit}"
    return f"{number:.0f} B"


def latency_text(row: Row) -> str:
    """Median and 99th percentile in milliseconds; empty where it was not measured."""
    latency = row.get("latency_ms")
    return f"{latency['p50']:.2f} / {latency['p99']:.2f}" if latency else ""


def best_names(rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, str]:
    """The model with the highest value of each metric."""
    return {metric: max(rows, key=lambda row: row["metrics"][metric])["name"] for metric in metrics} if rows else {}


def leaderboard_table(leaderboard: Mapping[str, Any], left_out: Collection[str] = ()) -> Table:
    """The leaderboard as a rich table: the best of each metric in bold, the gain over the baseline with its stars.

    Args:
        leaderboard: the content of ``leaderboard.json``.
        left_out: titles of columns to leave out.
    """
    table = Table(
        title=_title(leaderboard), caption=Text(caption_text(leaderboard)), title_justify="left", caption_justify="left"
    )
    columns = {title: cells for title, cells in _columns(leaderboard).items() if title not in left_out}
    for title in columns:
        table.add_column(
            title, justify="left" if title in (MODEL, KIND) else "right", no_wrap=title != MODEL, overflow="fold"
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _columns(leaderboard: Mapping[str, Any]) -> dict[str, list[Text]]:
    metrics, rows, baseline = shown_metrics(leaderboard), leaderboard["rows"], leaderboard.get("baseline")
    best, main = best_names(rows, metrics), main_metric(leaderboard["cutoffs"])
    columns = {MODEL: [Text(row["name"]) for row in rows], KIND: [Text(row["kind"]) for row in rows]}
    for metric in metrics:
        styles = ["bold" if best[metric] == row["name"] else "" for row in rows]
        texts = [metric_text(row, metric) for row in rows]
        columns[metric_title(metric)] = [Text(text, style) for text, style in zip(texts, styles, strict=True)]
    columns[f"vs {baseline}" if baseline else "gain"] = [Text(gain_text(row, main)) for row in rows]
    for place, title in enumerate(COSTS):
        columns[title] = [Text(cost_texts(row)[place]) for row in rows]
    return columns


def fitting_table(leaderboard: Mapping[str, Any], width: int) -> Table:
    """The table without the columns that do not fit; what is dropped first says least, or is told by another column."""
    mrr = metric_title(shown_metrics(leaderboard)[-1])
    droppable = [SECONDS, mrr, KIND, LATENCY, SIZE, PARAMETERS]
    console = Console(width=10_000, file=io.StringIO())
    for count in range(len(droppable) + 1):
        table = leaderboard_table(leaderboard, droppable[:count])
        if console.measure(_bare(leaderboard, droppable[:count])).maximum <= width:
            break
    return table


def _bare(leaderboard: Mapping[str, Any], left_out: Collection[str]) -> Table:
    """The table without title and caption, which wrap and do not count for the width."""
    table = leaderboard_table(leaderboard, left_out)
    table.title = table.caption = None
    return table


def cost_texts(row: Row) -> list[str]:
    """The cells of `COSTS`; empty where unknown."""
    parameters = (row.get("parameters") or {}).get("total")
    seconds = row.get("train_seconds_per_epoch")
    return [
        f"{parameters:,}" if parameters is not None else "",
        size_text(row["bytes"]) if row.get("bytes") else "",
        latency_text(row),
        f"{seconds:.1f}" if seconds is not None else "",
    ]


def _title(leaderboard: Mapping[str, Any]) -> Text:
    parts = [str(leaderboard[key]) for key in ("dataset", "split", "part") if leaderboard.get(key)]
    return Text(" · ".join(["Leaderboard", *parts]))


def caption_text(leaderboard: Mapping[str, Any]) -> str:
    """What the figures mean."""
    users = leaderboard.get("users")
    text = "All items ranked" + (f" for {users:,} users" if users else "")
    if leaderboard.get("baseline"):
        metric = metric_title(main_metric(leaderboard["cutoffs"]))
        test = "paired test over users (Holm): * p < .05, ** p < .01, *** p < .001"
        text += f"; gain in {metric} over {leaderboard['baseline']}, {test}"
    return text


def print_leaderboard(leaderboard: Mapping[str, Any], console: Console) -> None:
    """Print the leaderboard.

    Args:
        leaderboard: the content of ``leaderboard.json``.
        console: where to; a narrow one gets fewer columns. Names are printed as they are, never read as markup.
    """
    console.print(fitting_table(leaderboard, console.width))
