"""Sizes that a stream's policy chose, by frequency, as blocks of items and widths of their vectors for CpRec."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.embedding_size.sizes import SIZES, WIDTH

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SizeBlocks:
    """Blocks of items, most frequent first.

    Attributes:
        boundaries: last item of every block but the last.
        ranks: widths of the blocks' vectors.
        frequencies: smallest number of interactions in each block.
        sizes: mean size that the policy chose in each block.
    """

    boundaries: tuple[int, ...]
    ranks: tuple[int, ...]
    frequencies: tuple[int, ...]
    sizes: tuple[float, ...]


def falling(values: FloatArray) -> FloatArray:
    """The closest sequence that never rises (isotonic regression by pooling neighbors).

    >>> falling(np.array([3.0, 1.0, 2.0, 0.0])).tolist()
    [3.0, 1.5, 1.5, 0.0]
    """
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (high, many), (low, few) = pools[-2], pools[-1]
            pools[-2:] = [((high * many + low * few) / (many + few), many + few)]
    means, counts = zip(*pools, strict=True) if pools else ((), ())
    return np.repeat(np.array(means), np.array(counts, np.int64))


def size_blocks(counts: NDArray[np.int64], sizes: NDArray[np.int64], dim: int) -> SizeBlocks:
    """Cut items by frequency where the size that is usual there changes.

    The policy sees a frequency, so items of one frequency belong together: their mean size, made to fall with the
    frequency, is rounded to a candidate size on a logarithmic scale; each size that occurs makes a block, whose vectors
    have that share of the student's width that the size has of the largest one. The first block has the whole width,
    which a tree softmax asks for.

    Args:
        counts: (N,) interactions of every item.
        sizes: (N,) numbers in its embedding.
        dim: width of the student.

    Raises:
        ValueError: there is no item.
    """
    if not len(counts):
        raise ValueError("counts: expected at least one item")
    order = np.argsort(-counts, kind="stable")
    frequency, chosen = counts[order], sizes[order].astype(np.float64)
    _, starts, many = np.unique(-frequency, return_index=True, return_counts=True)
    usual = falling(np.repeat(np.add.reduceat(chosen, starts) / many, many))
    edges = np.array([(low * high) ** 0.5 for low, high in pairwise(SIZES)])  # between neighbors, geometrically
    nearest = np.array(SIZES)[np.searchsorted(edges, usual)]
    ends = [*(np.flatnonzero(np.diff(nearest)) + 1).tolist(), len(counts)]
    ranks = [max(1, round(dim * int(nearest[end - 1]) / WIDTH)) for end in ends]
    ranks[0] = dim
    ends, ranks = _merged(ends, ranks)
    borders = list(pairwise([0, *ends]))
    return SizeBlocks(
        tuple(ends[:-1]),
        tuple(ranks),
        tuple(int(frequency[end - 1]) for end in ends),
        tuple(round(float(chosen[low:high].mean()), 2) for low, high in borders),
    )


def _merged(ends: list[int], ranks: list[int]) -> tuple[list[int], list[int]]:
    """Neighboring blocks of one width, as small students give them, are one block."""
    kept = [place for place in range(len(ends)) if place == len(ends) - 1 or ranks[place] != ranks[place + 1]]
    return [ends[place] for place in kept], [ranks[place] for place in kept]
