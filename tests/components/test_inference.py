from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.data.batching import Batch
from components.data.flat_sequences import EvaluationCases, Sequences
from components.errors import StageError
from components.inference import TILE, Scorer
from components.model import OutputHead, Ranker
from tests.tiny_artifact import make_model


class FixedHead(OutputHead):
    """Every history gets the same scores; `widest` is the largest block that was asked for."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.register_buffer("fixed", torch.tensor([float("nan"), *scores]))
        self.widest = 0

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        return states.sum()

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        return self.fixed[candidates].expand(len(states), -1)

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        self.widest = max(self.widest, len(states) * (stop - start))
        return self.fixed[start:stop].expand(len(states), -1)


class Fixed(Ranker):
    def __init__(self, scores: list[float], max_length: int = 3) -> None:
        super().__init__()
        self.head, self.num_items, self.max_length = FixedHead(scores), len(scores), max_length
        self.dropout = nn.Dropout(0.9)

    def states(self, batch: Batch) -> Tensor:
        return self.dropout(torch.ones(len(batch), 2))


def make_cases(histories: list[list[int]], targets: list[int]) -> EvaluationCases:
    lengths = np.array([len(history) + 1 for history in histories])
    items = np.array([x for h, t in zip(histories, targets, strict=True) for x in [*h, t]], dtype=np.int32)
    count = len(histories)
    ends = lengths.astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    users = np.arange(1, count + 1, dtype=np.int32)
    return Sequences(users, offsets, items, ends - 1, ends - 1).cases("test")


def random_cases(num_items: int, count: int, seed: int = 0) -> EvaluationCases:
    rng = np.random.default_rng(seed)
    histories = [rng.integers(1, num_items + 1, rng.integers(1, 30)).tolist() for _ in range(count)]
    return make_cases(histories, rng.integers(1, num_items + 1, count).tolist())


def sorted_positions(model: Ranker, cases: EvaluationCases, mask: bool) -> NDArray[np.int64]:
    """The plain reference: score everything, mask, sort, look the target up."""
    positions = []
    for case in range(len(cases)):
        scorer = Scorer(model, batch_size=1)
        with torch.inference_mode():
            state = scorer._states([cases.history(case)], None)
            scores = model.head.block(state, 1, model.num_items + 1)[0].numpy().copy()
        target = int(cases.targets[case])
        if mask:
            for item in set(cases.history(case).tolist()) - {target}:
                scores[item - 1] = -np.inf
        positions.append(1 + int((scores > scores[target - 1]).sum()))
    return np.array(positions)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("batch_size", "block_items"), [(512, 65536), (7, 65536), (3, 20), (1, 1)])
def test_positions_match_the_sorted_reference(mask: bool, batch_size: int, block_items: int) -> None:
    model, _ = make_model(60)
    cases = random_cases(60, 50)
    scorer = Scorer(model, batch_size=batch_size, block_items=block_items)
    np.testing.assert_array_equal(scorer.positions(cases, mask_history=mask), sorted_positions(model, cases, mask))


@pytest.mark.parametrize(("ties", "expected"), [("against", [4, 4, 1]), ("average", [3, 3, 1]), ("for", [2, 2, 1])])
def test_ties_are_counted_as_asked(ties: str, expected: list[int]) -> None:
    model = Fixed([9.0, 5.0, 5.0, 5.0, 1.0])
    cases = make_cases([[5], [5, 5], [5]], [2, 4, 1])
    assert Scorer(model).positions(cases, ties=ties).tolist() == expected


def test_masking_leaves_out_the_whole_history_and_never_the_target() -> None:
    model = Fixed([9.0, 8.0, 7.0, 6.0, 5.0], max_length=1)
    cases = make_cases([[1, 2, 3], [1, 5]], [4, 5])
    assert Scorer(model).positions(cases).tolist() == [4, 5]
    assert Scorer(model).positions(cases, mask_history=True).tolist() == [1, 4]


def test_scores_that_are_not_numbers_are_an_error() -> None:
    cases = make_cases([[1]], [2])
    with pytest.raises(StageError, match="NaN"):
        Scorer(Fixed([1.0, float("nan")])).positions(cases)


def test_a_competitor_without_a_number_stands_before_the_target() -> None:
    assert Scorer(Fixed([float("nan"), 5.0, 1.0])).positions(make_cases([[1]], [2])).tolist() == [2]


def test_memory_is_bounded() -> None:
    model = Fixed(list(np.linspace(1, 0, 500)))
    cases = random_cases(500, 40)
    Scorer(model, batch_size=4, block_items=300).positions(cases)
    assert model.head.widest <= 4 * 300  # type: ignore[union-attr, operator]
    model.head.widest = 0  # type: ignore[union-attr, assignment]
    Scorer(model, batch_size=4, block_items=300).top_k([np.array([1], np.int32)] * 9, 5)
    assert model.head.widest <= 4 * 300  # type: ignore[union-attr, operator]


def test_no_cases_give_no_positions() -> None:
    cases = random_cases(60, 3)
    empty = EvaluationCases(cases.sequences, *(np.empty(0, np.int64),) * 4)
    assert Scorer(make_model(60)[0]).positions(empty).shape == (0,)


@pytest.mark.parametrize("block_items", [1, 7, 60, 65536])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_top_k_matches_a_full_sort(block_items: int, exclude_seen: bool) -> None:
    model, _ = make_model(60)
    rng = np.random.default_rng(1)
    histories = [rng.integers(1, 61, n).astype(np.int32) for n in (1, 5, 40, 12)]
    items, scores = Scorer(model, block_items=block_items, reproducible=True).top_k(
        histories, 10, exclude_seen=exclude_seen
    )
    for row, history in enumerate(histories):
        everything = Scorer(model, reproducible=True).top_k([history], 60, exclude_seen=False)
        seen = set(history.tolist()) if exclude_seen else set()
        expected = [int(item) for item in everything[0][0] if item not in seen][:10]
        assert items[row].tolist() == expected
        assert np.all(np.diff(scores[row]) <= 0)


def test_top_k_of_the_model_agrees() -> None:
    model, _ = make_model(60)
    scorer = Scorer(model)
    history = np.array([3, 1, 4], np.int32)
    with torch.inference_mode():
        expected, values = model.top_k(scorer._batch([history], None), 7)
    items, scores = scorer.top_k([history], 7, exclude_seen=False)
    assert items[0].tolist() == expected[0].tolist()
    np.testing.assert_allclose(scores[0], values[0].numpy(), rtol=1e-5)


@pytest.mark.parametrize("block_items", [1, 2, 3, 100])
def test_equal_scores_are_ordered_by_item_number(block_items: int) -> None:
    model = Fixed([1.0, 5.0, 5.0, 2.0, 5.0, 2.0])
    items, _ = Scorer(model, block_items=block_items).top_k([np.array([], np.int32)], 5)
    assert items[0].tolist() == [2, 3, 5, 4, 6]


@pytest.mark.parametrize("block_items", [2, 100])
def test_rows_end_in_padding_where_too_few_are_left(block_items: int) -> None:
    model = Fixed([3.0, float("nan"), 1.0, -float("inf"), 2.0])
    items, scores = Scorer(model, block_items=block_items).top_k([np.array([1], np.int32)], 4)
    assert items[0].tolist() == [5, 3, 0, 0]
    assert scores[0].tolist() == [2.0, 1.0, -np.inf, -np.inf]


@pytest.mark.parametrize("k", [1, 5])
def test_a_few_best_of_many_match_a_full_sort(k: int) -> None:
    """Rows that a heap decides, and rows with equal scores or scores that are no numbers, which it leaves to others."""
    rng = np.random.default_rng(0)
    scores = rng.permutation(400).astype(np.float32)
    for number, change in enumerate((None, (3, 399.0), (3, scores.max() - k), (7, np.nan), (9, np.inf))):
        values = scores.copy()
        if change:
            values[change[0]] = change[1]
        model = Fixed(values.tolist())
        items, found = Scorer(model).top_k([np.array([5], np.int32)], k)
        values[4] = -np.inf  # seen
        values[np.isnan(values)] = -np.inf
        expected = np.lexsort((np.arange(400), -values))[:k]
        assert (items[0] == expected + 1).all(), number
        np.testing.assert_array_equal(found[0], values[expected])


def test_rows_without_enough_items_end_in_padding_among_many() -> None:
    model = Fixed([1.0, 2.0] + [-float("inf")] * 300)
    items, scores = Scorer(model).top_k([np.array([1], np.int32)], 3)
    assert items[0].tolist() == [2, 0, 0]
    assert scores[0].tolist() == [2.0, -np.inf, -np.inf]


def test_exclusion_covers_the_history_that_the_model_no_longer_sees() -> None:
    model = Fixed([9.0, 8.0, 7.0], max_length=1)
    assert Scorer(model).top_k([np.array([1, 2], np.int32)], 3)[0].tolist() == [[3, 0, 0]]


def test_company_never_changes_an_answer() -> None:
    """A batch gives the bits of single requests; plain batching would reorder the tails of long lists."""
    model, _ = make_model(3000)
    rng = np.random.default_rng(2)
    histories = [rng.integers(1, 3001, n).astype(np.int32) for n in rng.integers(0, 30, 45)]
    scorer = Scorer(model, batch_size=32, block_items=1000, reproducible=True)
    items, scores = scorer.top_k(histories, 500)
    for row, history in enumerate(histories):
        alone = scorer.top_k([history], 500)
        np.testing.assert_array_equal(items[row], alone[0][0])
        np.testing.assert_array_equal(scores[row], alone[1][0])


def test_reproducible_products_have_one_shape() -> None:
    model = Fixed([3.0, 2.0, 1.0])
    rows: list[int] = []
    block = model.head.block
    model.head.block = lambda states, start, stop: rows.append(len(states)) or block(states, start, stop)  # type: ignore[method-assign, func-returns-value]
    Scorer(model, reproducible=True).top_k([np.array([1], np.int32)] * 11, 1)
    Scorer(model, reproducible=True).top_k([np.array([1], np.int32)], 1)
    assert rows == [TILE] * 3


def test_evaluation_mode_is_used() -> None:
    model = Fixed([1.0, 2.0])
    model.train()
    Scorer(model)
    assert not model.training


@pytest.mark.parametrize(
    ("arguments", "message"), [({"batch_size": 0}, "batch_size"), ({"block_items": 0}, "block_items")]
)
def test_sizes_must_be_positive(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scorer(Fixed([1.0]), **arguments)  # type: ignore[arg-type]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Scorer(Fixed([1.0])).top_k([], 0)
    with pytest.raises(ValueError, match="ties must be"):
        Scorer(Fixed([1.0])).positions(make_cases([[1]], [1]), ties="none")
