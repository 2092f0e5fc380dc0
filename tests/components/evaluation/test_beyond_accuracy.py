from __future__ import annotations

import doctest
import itertools

import numpy as np
import pytest

from components.evaluation import beyond_accuracy as module
from components.evaluation.beyond_accuracy import (
    beyond_accuracy,
    catalog_coverage,
    exposure,
    gini,
    intra_list_similarity,
    novelty,
)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(module).failed == 0


def test_padding_is_no_recommendation() -> None:
    lists = np.array([[1, 2, 0], [1, 0, 0]])
    assert exposure(lists, 3).tolist() == [2, 1, 0]
    assert catalog_coverage(lists, 3) == pytest.approx(2 / 3)


def test_novelty_by_hand() -> None:
    counts = np.array([0, 7, 3, 1, 1])  # smoothed: 8, 4, 2, 2 of 16, so 1, 2, 3, 3 bits
    assert novelty(np.array([[1, 2], [3, 0]]), counts) == pytest.approx((1 + 2 + 3) / 3)
    assert novelty(np.zeros((2, 3), dtype=int), counts) == 0.0


def test_gini_equals_the_mean_absolute_difference() -> None:
    values = np.random.default_rng(0).integers(0, 50, size=40)
    pairs = sum(abs(a - b) for a, b in itertools.product(values, values))
    assert gini(values) == pytest.approx(pairs / (2 * len(values) ** 2 * values.mean()))
    assert gini(np.zeros(4)) == 0.0


def test_similarity_equals_the_mean_over_pairs() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(31, 5))
    vectors[0] = 7.0  # the row of PAD must not count, whatever it holds
    vectors[4] = 0.0  # an item without a vector
    lists = np.stack([generator.permutation(30)[:6] + 1 for _ in range(8)])
    lists[0, 4:] = 0
    lists[1, 0] = 4
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    means = []
    for row in lists:
        known = [item for item in row if item not in (0, 4)]
        means.append(np.mean([unit[a] @ unit[b] for a, b in itertools.combinations(known, 2)]))
    assert intra_list_similarity(lists, vectors) == pytest.approx(np.mean(means), abs=1e-6)
    assert intra_list_similarity(np.array([[1], [2]]), vectors) == 0.0


def test_all_together() -> None:
    lists, counts = np.array([[1, 2], [1, 3]]), np.array([0, 4, 2, 1, 1])
    assert set(beyond_accuracy(lists, counts)) == {"coverage", "novelty", "gini"}
    assert "intra_list_similarity" in beyond_accuracy(lists, counts, np.eye(5))
