"""The candidate sizes of embeddings, and what they take in memory (ESAPN, section 3.2 and Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

SIZES: Final = (2, 4, 8, 16, 64, 128)  # D, smallest first; everybody starts with the first
NUM_SIZES: Final = len(SIZES)
LARGEST: Final = NUM_SIZES - 1  # index of the size that cannot be enlarged
WIDTH: Final = SIZES[-1]  # what the network reads, and the size of FIXED
ALL_WIDTH: Final = sum(SIZES)  # of somebody who has an embedding of every size: DARTS, AutoEmb, ESAPN's own code
STARTS: Final = (0, *accumulate(SIZES[:-1]))  # where each size begins when all of one entity lie side by side
BYTES: Final = 4  # of a float32


def total_dim(counts: Sequence[int]) -> int:
    """Numbers that entities of chosen sizes hold: Table 2, "Total Dim".

    Args:
        counts: entities of every size, in the order of `SIZES`.

    >>> total_dim([1041, 10854, 18146, 30836, 22830, 54786])
    9157770
    """
    if len(counts) != NUM_SIZES:
        raise ValueError(f"counts: expected one per size {SIZES}, got {len(counts)}")
    return sum(int(count) * size for count, size in zip(counts, SIZES, strict=True))


def memory_ratio(counts: Sequence[int]) -> float:
    """Share of FIXED's embedding memory: Table 2, "Ratio"; 0 for nobody.

    >>> round(100 * memory_ratio([17032, 216, 380, 623, 2237, 6790]), 2)
    30.37
    """
    fixed = sum(map(int, counts)) * WIDTH
    return total_dim(counts) / fixed if fixed else 0.0
