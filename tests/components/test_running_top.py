from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from components.running_top import FEW, descending, merge_block


def merged(scores: NDArray[np.float32], k: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    items = np.zeros((len(scores), k), np.int64)
    best = np.full((len(scores), k), -np.inf, np.float32)
    for start in range(0, scores.shape[1], width):
        merge_block(np.ascontiguousarray(scores[:, start : start + width]), start + 1, items, best)
    return items, best


def sorted_lists(scores: NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
    """The plain reference: sort everything by falling score, then by item number."""
    rows = []
    for row in scores.tolist():
        pairs = [(-score, item) for item, score in enumerate(row, start=1) if score > -np.inf]
        rows.append([(item, -score) for score, item in sorted(pairs)[:k]])
    return rows


SCORES = st.sampled_from([0.0, -0.0, 1.5, -1.5, 2.0, 3.0, -7.0, float("nan"), -np.inf, np.inf])


@settings(max_examples=300, deadline=None)
@given(
    scores=arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 25)), elements=SCORES),
    k=st.integers(1, 12),
    width=st.integers(1, 26),
)
def test_any_scores_in_any_blocks_give_the_sorted_lists(scores: NDArray[np.float32], k: int, width: int) -> None:
    items, best = merged(scores, k, width)
    for row, expected in enumerate(sorted_lists(scores, k)):
        end = len(expected)
        assert list(zip(items[row, :end].tolist(), best[row, :end].tolist(), strict=True)) == expected
        assert items[row, end:].tolist() == [0] * (k - end)
        assert (best[row, end:] == -np.inf).all()


@pytest.mark.parametrize("width", [50, 333, 1000])
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1, 40])
def test_many_different_scores_give_the_sorted_lists(rows: int, width: int) -> None:
    scores = np.random.default_rng(rows).standard_normal((rows, 1000)).astype(np.float32)
    items, best = merged(scores, 100, width)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    np.testing.assert_array_equal(items, order + 1)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, 1))


def test_the_order_is_that_of_a_stable_sort() -> None:
    values = np.random.default_rng(0).integers(-3, 4, (20, 30)).astype(np.float32)
    values[:, ::7] *= -0.0
    values[values == 3] = -np.inf
    np.testing.assert_array_equal(descending(values), np.argsort(-values, axis=1, kind="stable"))
