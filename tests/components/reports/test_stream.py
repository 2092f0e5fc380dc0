"""Rows, tables and findings of streams, from worked values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from components.reports.stream import Finished, main_grid, memory_grid, stream_document
from components.reports.stream_markdown import findings
from components.reports.stream_pictures import smoothed, stream_pictures

FACTS = {"paper": None}
SIDES = ("users", "items")


def finished(method: str, accuracy: float, loss: float, sizes: list[int] | None, shift: float = 0.0) -> Finished:
    counts = sizes or [0, 0, 0, 0, 0, 100]
    total = sum(count * size for count, size in zip(counts, (2, 4, 8, 16, 64, 128), strict=True))
    memory = {"entities": 100, "sizes": sizes, "total_dim": total, "fixed_dim": 12_800, "ratio": total / 12_800}
    curve = {"rows": [5] * 100, "loss": [loss] * 100, "accuracy": [accuracy] * 100, "size": [4.0] * 50 + [None] * 0}
    windows = {
        "until": [1, 2],
        "loss": [loss] * 2,
        "accuracy": [accuracy] * 2,
        "user_size": [2.0] * 2,
        "item_size": [2.0] * 2,
    }
    metrics: dict[str, Any] = {
        "method": method,
        "accuracy": accuracy,
        "loss": loss,
        "test_ratings": 500,
        "memory": dict.fromkeys(SIDES, memory),
        "by_frequency": dict.fromkeys(SIDES, curve),
        "windows": windows,
    }
    users = np.stack([np.full(40, 3.0), np.linspace(0.1, 0.3, 40) - shift, np.linspace(0.5, 0.9, 40)], 1)
    return Finished(metrics, users)


def document(esapn_accuracy: float = 0.6) -> dict[str, Any]:
    wobble = np.random.default_rng(0).normal(0, 0.01, 40)
    better = finished("esapn", esapn_accuracy, 0.20, [50, 50, 0, 0, 0, 0])
    better.users[:, 1] += wobble - 0.05
    found = {
        ("fixed", "binary"): {0: finished("fixed", 0.55, 0.25, None), 1: finished("fixed", 0.57, 0.23, None)},
        ("darts", "binary"): {0: finished("darts", 0.57, 0.23, None)},
        ("autoemb", "binary"): {0: finished("autoemb", 0.58, 0.22, None)},
        ("esapn", "binary"): {0: better},
    }
    return stream_document("tiny", found, {}, FACTS)


def test_means_deviations_and_memory() -> None:
    rows = {row["name"]: row for row in document()["rows"]}
    assert rows["fixed"]["accuracy"] == pytest.approx(0.56)
    assert rows["fixed"]["accuracy_std"] == pytest.approx(0.0141421, abs=1e-6)
    assert rows["esapn"]["memory"]["ratio"] == pytest.approx(300 / 12_800)
    assert rows["esapn"]["p_value"]["loss"] < 1e-6
    assert rows["esapn"]["p_value"]["accuracy"] == 1.0
    assert "p_value" not in rows["fixed"]


def test_grids_show_what_was_counted() -> None:
    main, memory = main_grid(document()), memory_grid(document())
    assert main.rows[0][:4] == ["binary", "FIXED", "56.00 ± 1.41", "–"]
    assert main.rows[3][6] == "2.3"
    assert memory.rows[0] == ["ESAPN, binary: users", "50", "50", "0", "0", "0", "0", "300", "12,800", "2.34 %"]
    assert len(memory.rows) == 2


def test_findings_say_when_the_order_is_the_papers_and_when_not() -> None:
    right, wrong = findings(document()), findings(document(esapn_accuracy=0.5))
    assert "ESAPN > AutoEmb > DARTS > FIXED; as in the paper" in right[0]
    assert "not the paper's order" in wrong[0]
    assert "at least equal in both" in right[-1]
    assert "worse in one or both" in wrong[-1]


def test_pictures_are_drawn_for_every_figure() -> None:
    drawn = stream_pictures(document())
    assert set(drawn) == {
        "over-time-binary",
        "by-frequency-accuracy-binary",
        "by-frequency-loss-binary",
        "sizes-binary",
    }
    assert all(one.svg.startswith("<svg") for one in drawn.values())


def test_smoothing_leaves_gaps_where_nobody_is() -> None:
    assert smoothed([None] * 12 + [2.0], [0] * 12 + [1])[:4] == [None] * 4
