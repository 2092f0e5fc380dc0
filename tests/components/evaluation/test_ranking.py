from __future__ import annotations

import numpy as np
import pytest

from components.errors import DataError, StageError
from components.evaluation.metrics import mean_metrics
from components.evaluation.ranking import sample_cases, select_cases, target_positions, top_lists
from components.evaluation.validation import validation_metric
from tests.components.evaluation.tiny import TableRanker, make_sequences, plain_positions, random_sequences

ITEMS = 23


@pytest.fixture
def table() -> np.ndarray:
    """Few distinct values, so that ties are frequent."""
    return np.random.default_rng(1).integers(0, 6, size=(ITEMS + 1, ITEMS)).astype(np.float32)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("ties", ["against", "average", "for"])
def test_positions_equal_the_slow_reference(table: np.ndarray, ties: str, mask: bool) -> None:
    cases = random_sequences(70, ITEMS).cases("test")
    found = target_positions(TableRanker(table), cases, ties=ties, mask_history=mask, batch_size=16)
    assert found.tolist() == plain_positions(table, cases, ties, mask)


def test_equal_scores_are_not_rewarded() -> None:
    """A model that says nothing must not look good: its targets stand last, whatever they are."""
    cases = random_sequences(40, ITEMS).cases("test")
    positions = target_positions(TableRanker(np.zeros((ITEMS + 1, ITEMS))), cases)
    assert (positions == ITEMS).all()
    assert mean_metrics(positions)["recall@20"] == 0.0


def test_a_planted_answer_is_found() -> None:
    histories = [[1 + (start + step) % ITEMS for step in range(6)] for start in range(30)]
    table = np.eye(ITEMS)[np.arange(ITEMS + 1) % ITEMS]  # after item i comes item i + 1
    cases = make_sequences(histories).cases("test")
    assert (target_positions(TableRanker(table), cases) == 1).all()
    control = target_positions(TableRanker(np.roll(table, 1, axis=0)), cases)
    assert (control == ITEMS).all()


def test_a_repeated_target_is_never_masked() -> None:
    cases = make_sequences([[3, 1, 2, 3]]).cases("test")  # the target stands in the history
    table = np.tile(np.arange(ITEMS, 0, -1, dtype=np.float32), (ITEMS + 1, 1))
    assert target_positions(TableRanker(table), cases).tolist() == [3]
    assert target_positions(TableRanker(table), cases, mask_history=True).tolist() == [1]


def test_scores_that_are_no_numbers_fail(table: np.ndarray) -> None:
    """NaN compares as not greater, which would make every target the first."""
    table[:] = np.nan
    with pytest.raises(StageError, match=r"NaN|not numbers"):
        target_positions(TableRanker(table), random_sequences(5, ITEMS).cases("test"))


def test_no_case_is_an_error(table: np.ndarray) -> None:
    cases = make_sequences([[1, 2, 3]]).cases("test")
    with pytest.raises(DataError, match="no user to evaluate"):
        target_positions(TableRanker(table), select_cases(cases, np.array([], dtype=np.int64)))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(table: np.ndarray, training: bool) -> None:
    model = TableRanker(table).train(training)
    cases = random_sequences(10, ITEMS).cases("valid")
    validation_metric(model, cases)
    top_lists(model, cases, 3)
    assert model.training is training


def test_top_lists_agree_with_positions() -> None:
    table = np.random.default_rng(2).random((ITEMS + 1, ITEMS))  # no ties
    cases = random_sequences(50, ITEMS).cases("test")
    positions = target_positions(TableRanker(table), cases)
    lists = top_lists(TableRanker(table), cases, ITEMS, batch_size=7)
    assert [lists[case].tolist().index(target) + 1 for case, target in enumerate(cases.targets)] == positions.tolist()


def test_top_lists_leave_seen_items_out(table: np.ndarray) -> None:
    cases = random_sequences(20, ITEMS).cases("test")
    lists = top_lists(TableRanker(table), cases, 5, exclude_seen=True)
    assert all(not set(lists[case]) & set(cases.history(case)) for case in range(len(cases)))


def test_samples_are_fixed_by_the_seed() -> None:
    cases = random_sequences(100, ITEMS).cases("valid")
    first, again, other = (sample_cases(cases, 20, seed).rows.tolist() for seed in (0, 0, 1))
    assert first == again == sorted(set(first))
    assert first != other
    assert sample_cases(cases, None) is cases
    assert sample_cases(cases, 100) is cases


def test_validation_metric_is_the_mean_of_the_reference(table: np.ndarray) -> None:
    cases = random_sequences(60, ITEMS).cases("valid")
    expected = np.mean([1 / np.log2(1 + p) if p <= 10 else 0 for p in plain_positions(table, cases)])
    assert validation_metric(TableRanker(table), cases) == pytest.approx(expected)
    sampled = validation_metric(TableRanker(table), cases, max_users=15, seed=3)
    chosen = sample_cases(cases, 15, 3)
    positions = plain_positions(table, chosen)
    assert sampled == pytest.approx(np.mean([1 / np.log2(1 + p) if p <= 10 else 0 for p in positions]))
