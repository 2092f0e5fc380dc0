"""Sizes by frequency as blocks: worked cases, and that a planted partition is found."""

from __future__ import annotations

import numpy as np
import pytest

from components.embedding_size.to_blocks import falling, size_blocks


def test_a_planted_partition_is_found() -> None:
    counts = np.array([50] * 4 + [20] * 6 + [3] * 30)
    sizes = np.array([128] * 4 + [16] * 6 + [2] * 30)
    shuffled = np.random.default_rng(0).permutation(40)
    blocks = size_blocks(counts[shuffled], sizes[shuffled], 64)
    assert blocks.boundaries == (4, 10)
    assert blocks.ranks == (64, 8, 1)
    assert blocks.frequencies == (50, 20, 3)
    assert blocks.sizes == (128, 16, 2)


def test_sizes_that_do_not_depend_on_the_frequency_make_one_block() -> None:
    blocks = size_blocks(np.arange(1, 41), np.full(40, 16), 64)
    assert blocks.boundaries == ()
    assert blocks.ranks == (64,)


def test_ranks_never_rise_whatever_the_sizes() -> None:
    draw = np.random.default_rng(1)
    for _ in range(20):
        blocks = size_blocks(draw.integers(1, 30, 200), draw.choice([2, 4, 8, 16, 64, 128], 200), 48)
        assert list(blocks.ranks) == sorted(blocks.ranks, reverse=True)
        assert len(set(blocks.ranks)) == len(blocks.ranks) == len(blocks.boundaries) + 1


def test_falling_is_the_closest_that_never_rises() -> None:
    values = np.array([1.0, 3.0, 2.0, 2.0, 5.0])
    found = falling(values)
    assert (np.diff(found) <= 0).all()
    assert found.mean() == pytest.approx(values.mean())
    assert falling(np.array([5.0, 4.0])).tolist() == [5.0, 4.0]


def test_no_items_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one item"):
        size_blocks(np.zeros(0, np.int64), np.zeros(0, np.int64), 8)
