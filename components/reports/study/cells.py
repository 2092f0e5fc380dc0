"""The tables of a study as cells of text, which the terminal and Markdown share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from components.evaluation.significance import stars
from components.reports.plots import metric_title
from components.reports.study.paper import TABLE_4, printed
from components.reports.study.rows import METRICS

NONE: Final = "–"
SHORT: Final = ("recall@10", "ndcg@10")
MAIN_METRIC: Final = "ndcg@10"
MAX_REASON: Final = 60  # characters of the reason why a row is missing
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        title: what stands above it, ``""`` for nothing.
        header: names of the columns; the first is that of the rows.
        rows: their texts.
    """

    title: str
    header: tuple[str, ...]
    rows: list[list[str]]


def table_grids(document: Row) -> list[Grid]:
    """The tables of one document of a study.

    Args:
        document: what `pipelines.study` writes as ``TABLE.json``: table, paper, and rows by section.
    """
    table, dataset = document["table"], document.get("paper") or ""
    if table == "cost":
        return [_cost_grid(rows) for rows in document["sections"].values()]
    metrics = METRICS if table == "main" else SHORT
    shown = dataset if table == "main" else ""
    return [_quality_grid(title, rows, metrics, shown) for title, rows in document["sections"].items()]


def _quality_grid(title: str, rows: Sequence[Row], metrics: Sequence[str], dataset: str) -> Grid:
    header = ("model", *map(metric_title, metrics), f"gain in {metric_title(MAIN_METRIC)}", "over", "p", "by seed")
    cells = []
    for row in rows:
        cells.append([row["name"], *_metric_cells(row, metrics), *_comparison_cells(row)])
        paper = printed(dataset, row["model"])
        if paper:
            cells.append([f"{row['name']}, in the paper", *(f"{paper[name]:.4f}" for name in metrics), "", "", "", ""])
    return Grid(title, header, cells)


def _metric_cells(row: Row, metrics: Sequence[str]) -> list[str]:
    if not row["metrics"]:
        return [f"missing: {_first_reason(row)}", *(NONE for _ in metrics[1:])]
    return [_mean(row, name) for name in metrics]


def _mean(row: Row, metric: str) -> str:
    text = f"{row['metrics'][metric]:.4f}"
    return f"{text} ±{row['std'][metric]:.4f}".replace("±0.", "±.") if len(row["seeds"]) > 1 else text


def _comparison_cells(row: Row) -> list[str]:
    gap = [f"seed {seed} missing: {_shortened(reason)}" for seed, reason in row["missing"].items()]
    missing = "; ".join(gap) if row["metrics"] else ""
    gain = (row.get("gain") or {}).get(MAIN_METRIC)
    if gain is None:
        return ["", "", "", missing]
    p_value = row["p_value"][MAIN_METRIC]
    signs = " ".join(filter(None, [row["signs"][MAIN_METRIC], missing]))
    return [f"{100 * gain:+.1f} % {stars(p_value)}".rstrip(), row["against"], f"{p_value:.2g}", signs]


def _first_reason(row: Row) -> str:
    return _shortened(next(iter(row["missing"].values()), "not run"))


def _shortened(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}…"


def _cost_grid(rows: Sequence[Row]) -> Grid:
    header = (
        "model",
        "parameters",
        "training s/epoch",
        "targets/s",
        "training ×",
        "users/s",
        "inference time ×",
        "model MB",
        "memory ×",
        "note",
    )
    cells = []
    for row in rows:
        cells.append([row["name"], *_cost_cells(row)])
        paper = TABLE_4.get(row["model"])
        if paper:
            training, memory, inference = (f"{ratio:.1f}" for ratio in paper)
            cells.append(
                [f"{row['name']}, in the paper", "", "", "", training, "", inference, "", memory, "Arts, on a GPU"]
            )
    return Grid("", header, cells)


def _cost_cells(row: Row) -> list[str]:
    ratio = row["ratio"]
    return [
        _number(row["parameters"], ","),
        _number(row["train_seconds_per_epoch"], ".2f"),
        _number(row["targets_per_second"], ",.0f"),
        _number(ratio.get("training"), ".2f"),
        _number(row["users_per_second"], ",.0f"),
        _number(ratio.get("inference"), ".2f"),
        _number(row["model_mb"], ".1f"),
        _number(ratio.get("memory"), ".2f"),
        _shortened(row["missing"]) if row["missing"] else "",
    ]


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def markdown_table(grid: Grid) -> str:
    """The table in GitHub's Markdown; what would break a cell is escaped."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [list(grid.header), *grid.rows]]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    lines.insert(1, f"|{'---|' * len(grid.header)}")
    return "\n".join(lines)
