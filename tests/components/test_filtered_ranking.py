"""`Scorer.top_k` among some items against the whole ranking, for every kind of head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.inference import Scorer
from components.model import Catalog
from components.schema import PAD
from components.students import STUDENTS
from tests.components.test_inference import Fixed

NUM_ITEMS = 90
TREE = {"boundaries": [10, 30, 60], "output": "tree"}


def scorer(compression: dict[str, Any] | None, *, reproducible: bool, block_items: int = 65536) -> Scorer:
    torch.manual_seed(0)
    catalog = Catalog(NUM_ITEMS, 3, np.arange(NUM_ITEMS, -1, -1))
    arguments = {"dim": 16, "num_layers": 1, "num_heads": 2, "inner_dim": 32, "max_length": 8}
    model = STUDENTS["sasrec"].make(catalog, {**arguments, "compression": compression})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return Scorer(model, reproducible=reproducible, block_items=block_items)


def drawn_mask(rng: np.random.Generator) -> NDArray[np.bool_] | None:
    if rng.random() < 0.2:
        return None
    return np.append(False, rng.random(NUM_ITEMS) < rng.choice([0.0, 0.03, 0.3, 0.9]))


@pytest.mark.parametrize("reproducible", [True, False])
@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("compression", [None, TREE, {**TREE, "output": "tied"}])
def test_among_some_items_the_ranking_is_that_of_all_items(
    compression: dict[str, Any] | None, exclude_seen: bool, reproducible: bool
) -> None:
    rng = np.random.default_rng(1)
    histories = [rng.integers(1, NUM_ITEMS + 1, rng.integers(1, 20)).astype(np.int32) for _ in range(40)]
    masks = [drawn_mask(rng) for _ in histories]
    ranker = scorer(compression, reproducible=reproducible, block_items=17)
    whole, whole_scores = ranker.top_k(histories, NUM_ITEMS, exclude_seen=exclude_seen)
    items, scores = ranker.top_k(histories, 12, exclude_seen=exclude_seen, among=masks)
    for row, mask in enumerate(masks):
        kept = whole[row] != PAD if mask is None else mask[whole[row]]
        expected, expected_scores = whole[row][kept][:12], whole_scores[row][kept][:12]
        count = len(expected)
        assert items[row].tolist() == expected.tolist() + [PAD] * (12 - count)
        np.testing.assert_allclose(scores[row, :count], expected_scores, rtol=0 if reproducible else 1e-5)


def test_equal_scores_keep_their_order() -> None:
    mask = np.array([False, True, False, True, True, True, False])
    items, _ = Scorer(Fixed([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])).top_k([np.array([6], np.int32)], 3, among=[mask])
    assert items.tolist() == [[3, 4, 5]]


def test_the_mask_of_one_history_is_not_that_of_another() -> None:
    mask = np.array([False, True, False, False])
    histories = [np.array([3], np.int32)] * 2
    items, _ = Scorer(Fixed([1.0, 2.0, 3.0])).top_k(histories, 2, among=[mask, None])
    assert items.tolist() == [[1, PAD], [2, 1]]
