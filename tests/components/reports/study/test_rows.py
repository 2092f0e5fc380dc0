"""Rows of a study from fixed positions and fixed times."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from components.evaluation.metrics import metric_values
from components.reports.study.rows import Model, compare
from tests.components.reports.study.documents import REASON, cost_rows, positions, quality_rows


def test_means_over_users_then_over_seeds() -> None:
    plain = quality_rows()[0]
    assert plain["metrics"]["recall@5"] == 0
    assert plain["metrics"]["recall@10"] == 1
    expected = [np.mean([1 / np.log2(7), 1 / np.log2(10)]), np.mean([1 / np.log2(8), 1 / np.log2(9)])]
    assert plain["metrics"]["ndcg@10"] == pytest.approx(np.mean(expected))
    assert plain["std"]["ndcg@10"] == pytest.approx(np.std(expected, ddof=1))
    assert plain["seeds"] == [0, 1]
    low, high = plain["interval"]["ndcg@10"]
    assert low < plain["metrics"]["ndcg@10"] < high


def test_gain_and_test_against_the_named_row() -> None:
    plain, distilled, *_ = quality_rows()
    assert "gain" not in plain
    mean = distilled["metrics"]["ndcg@10"] / plain["metrics"]["ndcg@10"] - 1
    assert distilled["gain"]["ndcg@10"] == pytest.approx(mean)
    per_user = [
        np.mean([metric_values(positions(first, seed), "ndcg@10") for seed, first in enumerate(pair)], axis=0)
        for pair in ((1, 2), (6, 7))
    ]
    expected = stats.ttest_rel(*per_user).pvalue
    assert distilled["p_value"]["ndcg@10"] == pytest.approx(expected)
    assert 0 < expected < 1e-6
    assert distilled["signs"] == {
        **{f"recall@{cutoff}": "==" for cutoff in (10, 20)},
        **{f"ndcg@{cutoff}": "++" for cutoff in (5, 10, 20)},
        "recall@5": "++",
    }


def test_a_row_without_trials_has_no_numbers_and_says_why() -> None:
    failed = quality_rows()[2]
    assert failed["metrics"] is None
    assert failed["missing"] == {"0": REASON, "1": REASON}
    assert "gain" not in failed


def test_a_row_with_some_of_its_seeds_is_compared_on_what_is_there() -> None:
    teacher = quality_rows()[3]
    assert teacher["seeds"] == [0]
    assert teacher["missing"] == {"1": "not run"}
    assert teacher["signs"]["ndcg@10"] == "+"
    assert teacher["std"]["ndcg@10"] == 0


def test_nothing_is_compared_with_a_row_that_is_missing() -> None:
    rows = compare(
        [Model("plain", "student", "sasrec", {}), Model("prm-kd", "student", "prm-kd", {0: positions(1)}, {}, "plain")]
    )
    assert "gain" not in rows[1]
    assert rows[1]["metrics"]["recall@10"] == 1


def test_costs_are_relative_to_the_plain_student_round_by_round() -> None:
    plain, slow, unknown = cost_rows()
    assert plain["ratio"] == {"training": 1.0, "memory": 1.0, "inference": 1.0}
    assert slow["ratio"] == {"training": 1.5, "memory": 2.0, "inference": 2.0}
    assert slow["users_per_second"] == 75.0
    assert unknown["ratio"] == {"training": 2.5}
    assert unknown["users_per_second"] is None
    assert unknown["missing"] == "two arrays, no model"
