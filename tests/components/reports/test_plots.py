from __future__ import annotations

import doctest
import itertools

import pytest

from components.reports import plots
from components.reports.plots import (
    data_shape,
    metric_bars,
    quality_against_cost,
    series_colors,
    slice_bars,
    spread,
    teacher_weights,
    training_curves,
)
from tests.components.reports.sample import MODELS, sample_leaderboard, sample_report

LEADERBOARD, REPORT = sample_leaderboard(200), sample_report()
ROWS = LEADERBOARD["rows"]
COLORS = series_colors(row["name"] for row in ROWS)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(plots).failed == 0


def test_every_model_has_a_bar_with_its_value() -> None:
    found = metric_bars(ROWS, ["ndcg@10", "recall@10"])
    assert found is not None
    for row in ROWS:
        assert f">{row['name']}<" in found.svg
        assert f"{row['metrics']['ndcg@10']:.4f}" in found.svg
    assert ROWS[0]["name"] in found.svg.split("aria-label=")[1][:300]


def test_cost_panels_follow_what_was_measured() -> None:
    both = quality_against_cost(ROWS, "ndcg@10")
    assert both is not None
    assert "size in MB" in both.svg
    assert "latency" in both.svg
    untimed = quality_against_cost([{**row, "latency_ms": None} for row in ROWS], "ndcg@10")
    assert untimed is not None
    assert "latency in ms" not in untimed.svg
    assert quality_against_cost([{**row, "latency_ms": None, "bytes": 0} for row in ROWS], "ndcg@10") is None


def test_log_axes_show_plain_numbers() -> None:
    for found in (quality_against_cost(ROWS, "ndcg@10"), data_shape(REPORT["data"])):
        assert found is not None
        assert "mathdefault" not in found.svg


def test_curves_draw_a_line_per_seed_and_survive_missing_values() -> None:
    found = training_curves(REPORT["curves"], "valid_ndcg@10", COLORS)
    assert found is not None
    assert found.svg.count(f"stroke: {'var(--series-'}") >= 2 * sum(map(len, REPORT["curves"].values()))
    one = training_curves({"plain": [[{"epoch": 1, "loss": 2.0}]]}, "valid_ndcg@10", COLORS)
    assert one is not None
    assert training_curves({"mostpop": [[]]}, "valid_ndcg@10", COLORS) is None


def test_too_many_curves_are_told() -> None:
    curves = {f"m{number}": [[{"epoch": 1, "loss": 2.0}]] for number in range(11)}
    found = training_curves(curves, "valid_ndcg@10", series_colors(curves))
    assert found is not None
    assert "3 more models are not drawn" in found.caption


def test_dropped_teachers_are_told_to_those_who_cannot_see() -> None:
    found = teacher_weights(REPORT["distillation"], COLORS)
    assert found is not None
    assert "unisrec-text dropped 21%" in found.svg
    assert teacher_weights({}, COLORS) is None


def test_slices_leave_out_empty_groups() -> None:
    empty = [{**row, "slices": {**row["slices"], "cold_items": {"users": 0}}} for row in ROWS]
    found = slice_bars(empty, "ndcg@10", "plain", COLORS)
    assert found is not None
    assert "popular items" in found.svg
    assert "cold items" not in found.svg
    assert slice_bars([], "ndcg@10", None, COLORS) is None


def test_nothing_to_draw_is_no_picture() -> None:
    assert metric_bars([], ["ndcg@10"]) is None
    assert data_shape({}) is None


def test_a_model_keeps_its_color() -> None:
    colors = series_colors(MODELS)
    assert len(set(colors.values())) == len(MODELS)
    assert series_colors(map(str, range(30)))["29"] in plots.COLORS


@pytest.mark.parametrize("heights", [[0.3, 0.31, 0.32, 0.9], [1.0, 1.0, 1.0], [5.0], [], [0.0, 3.0, 0.1, 2.9]])
def test_spread_keeps_distance_and_order(heights: list[float]) -> None:
    placed = spread(heights, 0.2)
    for a, b in itertools.combinations(range(len(heights)), 2):
        assert abs(placed[a] - placed[b]) >= 0.2 - 1e-9
        if heights[a] < heights[b]:
            assert placed[a] < placed[b]
