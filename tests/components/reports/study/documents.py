"""Documents of a study with fixed numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.reports.study.rows import Cost, Model, compare, compare_costs

USERS = 40
REASON = "out of\nmemory | twice"


def positions(first: int, seed: int = 0) -> NDArray[np.int64]:
    """Every other user's item at `first`, the others' at 9 or, for odd seeds, 8."""
    return np.array([first if user % 2 else 9 - seed % 2 for user in range(USERS)])


def quality_rows() -> list[dict[str, Any]]:
    """Plain and distilled with two seeds, a baseline that failed, a teacher with one seed of two."""
    plain = {0: positions(6), 1: positions(7, 1)}
    better = {0: positions(1), 1: positions(2, 1)}
    return compare(
        [
            Model("plain", "student", "sasrec", plain),
            Model("prm-kd", "student", "prm-kd", better, against="plain"),
            Model("gru4rec", "baseline", "gru4rec", {}, {0: REASON, 1: REASON}, "plain"),
            Model("text", "teacher", "unisrec", {0: positions(3)}, {1: "not run"}, "plain"),
        ]
    )


def document(table: str, rows: list[dict[str, Any]], **sections: list[dict[str, Any]]) -> dict[str, Any]:
    """A document of one section without a title, or of several."""
    common = {"table": table, "dataset": "mine", "paper": "scientific", "users": USERS, "seeds": [0, 1]}
    return {**common, "sections": sections or {"": rows}, "picture": None}


def cost_rows() -> list[dict[str, Any]]:
    """The plain student, one that is twice as dear, a teacher that was not measured."""
    rounds = [
        {"users_per_second": rate, "peak_mb": 300.0, "model_mb": 10.0, "parameters": 1000} for rate in (100.0, 200.0)
    ]
    slow = [
        {"users_per_second": rate, "peak_mb": 310.0, "model_mb": 20.0, "parameters": 2000} for rate in (50.0, 100.0)
    ]
    timing = {"train_seconds_per_epoch": 2.0, "targets_per_second": 500.0}
    return compare_costs(
        [
            Cost("plain", "student", "sasrec", timing, rounds),
            Cost("fm", "student", "fm", {"train_seconds_per_epoch": 3.0, "targets_per_second": 300.0}, slow),
            Cost("text", "teacher", "unisrec", {"train_seconds_per_epoch": 5.0}, [], "two arrays, no model"),
        ],
        "plain",
    )
