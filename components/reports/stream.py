"""Streams side by side: rows with means over seeds and tests over users, tables, and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from components.evaluation.significance import paired_test, stars
from components.reports.stream_paper import NAMES, printed_cell
from components.reports.study.cells import NONE, Grid

METRICS: Final = ("accuracy", "loss")
LOSS: Final = {"binary": "MSE", "five-class": "CE"}
BASE: Final = "fixed"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """One stream that is over.

    Attributes:
        metrics: what its ``metrics.json`` holds.
        users: (U, 3) ratings of the test part, mean loss and mean accuracy, by user.
    """

    metrics: Mapping[str, Any]
    users: NDArray[np.float64]


Streams = Mapping[tuple[str, str], Mapping[int, Finished]]  # by (name, task), by seed


def stream_document(dataset: str, found: Streams, missing: Mapping[str, str], facts: Row) -> dict[str, Any]:
    """All that is shown and written of several streams.

    Args:
        dataset: name of the run.
        found: what is finished.
        missing: why others are not, by name.
        facts: of the data and the setting.
    """
    rows = []
    for (name, task), seeds in found.items():
        base = found.get((BASE, task), {}) if name != BASE else {}
        rows.append(_row(name, task, seeds, base))
    return {"study": "esapn", "dataset": dataset, "facts": dict(facts), "rows": rows, "missing": dict(missing)}


def _row(name: str, task: str, seeds: Mapping[int, Finished], base: Mapping[int, Finished]) -> dict[str, Any]:
    metrics = [one.metrics for _, one in sorted(seeds.items())]
    row: dict[str, Any] = {"name": name, "task": task, "method": metrics[0]["method"], "seeds": sorted(seeds)}
    for key in METRICS:
        values = [float(one[key]) for one in metrics]
        row[key] = fmean(values)
        row[f"{key}_by_seed"] = values
        row[f"{key}_std"] = stdev(values) if len(values) > 1 else 0.0
    row["test_ratings"] = metrics[0]["test_ratings"]
    if base:
        row["p_value"] = {key: _p_value(seeds, base, column) for column, key in ((1, "loss"), (2, "accuracy"))}
    row["memory"] = {side: _memory([one["memory"][side] for one in metrics]) for side in ("users", "items")}
    total = sum(row["memory"][side]["total_dim"] for side in ("users", "items"))
    row["memory"]["ratio"] = total / sum(row["memory"][side]["fixed_dim"] for side in ("users", "items"))
    row["by_frequency"] = {side: _curves([one["by_frequency"][side] for one in metrics]) for side in ("users", "items")}
    row["windows"] = {
        "until": metrics[0]["windows"]["until"],
        **{key: _mean_lists([one["windows"][key] for one in metrics]) for key in (*METRICS, "user_size", "item_size")},
    }
    return row


def _p_value(seeds: Mapping[int, Finished], base: Mapping[int, Finished], column: int) -> float:
    """Paired over users: each one's mean, averaged over seeds, against the same of the baseline."""
    first = next(iter(seeds.values())).users
    tested = first[:, 0] > 0
    ours, theirs = (np.mean([one.users[tested, column] for one in each.values()], axis=0) for each in (seeds, base))
    return paired_test(ours, theirs)


def _memory(found: Sequence[Row]) -> dict[str, Any]:
    chosen = [one["sizes"] for one in found if one["sizes"]]
    sizes = np.mean(chosen, axis=0).tolist() if chosen else None
    means = {key: fmean(float(one[key]) for one in found) for key in ("total_dim", "fixed_dim", "ratio")}
    return {"entities": found[0]["entities"], "sizes": sizes, **means}


def _curves(found: Sequence[Row]) -> dict[str, list[float | None]]:
    return {key: _mean_lists([one[key] for one in found]) for key in ("rows", "loss", "accuracy", "size")}


def _mean_lists(lists: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Means place by place; None where a value is absent."""
    return [None if None in values else fmean(values) for values in zip(*lists, strict=True)]


def main_grid(document: Row) -> Grid:
    """Table 1: accuracy and loss of the test part, and the embeddings' share of FIXED's memory."""
    paper = document["facts"].get("paper")
    header = ["task", "method", "accuracy %", "p", "loss", "p ", "memory % of FIXED", "seeds"]
    rows = []
    for row in document["rows"]:
        values = row.get("p_value") or {}
        cells = [row["task"], NAMES.get(row["name"], row["name"])]
        cells += [_spread(100 * row["accuracy"], 100 * row["accuracy_std"], 2), _p(values.get("accuracy"))]
        cells += [_spread(row["loss"], row["loss_std"], 4), _p(values.get("loss"))]
        cells += [f"{100 * row['memory']['ratio']:.1f}", str(len(row["seeds"]))]
        rows.append([*cells, *([printed_cell(paper, row["task"], row["name"])] if paper else [])])
    return Grid("Accuracy and loss (Table 1)", (*header, *(["the paper"] if paper else [])), rows)


def _spread(mean: float, deviation: float, digits: int) -> str:
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if deviation else f"{mean:.{digits}f}"


def _p(value: float | None) -> str:
    return NONE if value is None else f"{value:.2g} {stars(value)}".strip()


def memory_grid(document: Row) -> Grid:
    """Table 2: how many users and items have which size, and what they take."""
    rows = []
    for row in document["rows"]:
        for side in ("users", "items"):
            memory = row["memory"][side]
            if memory["sizes"]:
                counts = [f"{count:,.0f}" for count in memory["sizes"]]
                totals = [
                    f"{memory['total_dim']:,.0f}",
                    f"{memory['fixed_dim']:,.0f}",
                    f"{100 * memory['ratio']:.2f} %",
                ]
                rows.append([f"{NAMES.get(row['name'], row['name'])}, {row['task']}: {side}", *counts, *totals])
    header = ("", "2", "4", "8", "16", "64", "128", "total dim", "FIXED", "ratio")
    return Grid("Sizes and memory (Table 2), means over seeds", header, rows)


def grids(document: Row) -> list[Grid]:
    """Both tables; the second only where a method chooses sizes."""
    return [grid for grid in (main_grid(document), memory_grid(document)) if grid.rows]
