from __future__ import annotations

import doctest

import numpy as np
import pytest
from pydantic import ValidationError

from components.evaluation import slices
from components.evaluation.slices import SliceConfig, case_slices, popular_items, slice_metrics
from tests.components.evaluation.tiny import make_sequences


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(slices).failed == 0


def test_membership() -> None:
    sequences = make_sequences([[1, 1, 1, 2], [1, 2, 1, 2, 1, 3], [2, 1, 1, 1, 1, 1, 4]])
    counts = np.array([0, 9, 4, 1, 0])
    config = SliceConfig(cold_count=1, popular_share=0.5, short_history=3, long_history=6)
    masks = case_slices(sequences.cases("test"), counts, config)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "cold_items": [False, True, True],  # item 4 was never seen in training
        "popular_items": [False, False, False],
        "short_histories": [True, False, False],
        "long_histories": [False, False, True],
    }
    assert set(masks) == set(slices.SLICES)


@pytest.mark.parametrize(("share", "expected"), [(0.1, [1]), (0.5, [1]), (0.51, [1, 2]), (0.99, [1, 2, 3])])
def test_popular_items_are_the_fewest_that_hold_the_share(share: float, expected: list[int]) -> None:
    counts = np.array([0, 5, 3, 2, 0])
    assert np.flatnonzero(popular_items(counts, share)).tolist() == expected


def test_an_empty_slice_has_no_metric() -> None:
    found = slice_metrics(np.array([1, 2]), {"cold_items": np.zeros(2, dtype=bool)}, (5,))
    assert found == {"cold_items": {"users": 0}}


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="cold_cuont"):
        SliceConfig.model_validate({"cold_cuont": 3})
