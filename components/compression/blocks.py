"""Blocks of items of like frequency, and how wide the vectors of each are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.errors import ConfigError

FREQUENT: Final = 0.2  # of the items that are left, the share that makes the next block


@dataclass(frozen=True)
class Blocks:
    """Consecutive ranges of items, which are numbered by training frequency, 1 the most frequent.

    Attributes:
        ends: last item of each block; the last of them is N.
        ranks: width of each block's own vectors, before they are projected to the model's width.
    """

    ends: tuple[int, ...]
    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.ends or any(low >= high for low, high in pairwise((0, *self.ends))):
            raise ConfigError(f"compression.boundaries: every block needs an item, but they end at {_show(self.ends)}")
        if len(self.ranks) != len(self.ends):
            raise ConfigError(f"compression.ranks: expected one per block ({len(self.ends)}), got {_show(self.ranks)}")
        if min(self.ranks) < 1:
            raise ConfigError(f"compression.ranks: expected at least 1 each, got {_show(self.ranks)}")

    @property
    def num_items(self) -> int:
        """N."""
        return self.ends[-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Items of each block."""
        return tuple(high - low for low, high in pairwise((0, *self.ends)))

    @property
    def starts(self) -> tuple[int, ...]:
        """First item of each block."""
        return (1, *(end + 1 for end in self.ends[:-1]))

    def __len__(self) -> int:
        return len(self.ends)

    def of(self, items: Tensor) -> Tensor:
        """(C,) number, from 0, of each item's block."""
        return torch.bucketize(items, torch.tensor(self.ends, device=items.device))


def partition(num_items: int, num_blocks: int, share: float = FREQUENT) -> tuple[int, ...]:
    """Sizes of blocks, 2:8 of what is left each time (CpRec, section 3.2.1), or another `share` of it.

    >>> partition(100, 3)
    (20, 16, 64)

    Raises:
        ConfigError: more blocks than items.
    """
    sizes: list[int] = []
    for _ in range(num_blocks - 1):
        sizes.append(round(share * (num_items - sum(sizes))))
    sizes.append(num_items - sum(sizes))
    return _filled(sizes, num_items)


def partition_by_frequency(counts: NDArray[np.int64], num_blocks: int) -> tuple[int, ...]:
    """Sizes of blocks that have about equal shares of all interactions.

    Args:
        counts: (N,) interactions of each item, most frequent first.
        num_blocks: n.

    >>> partition_by_frequency(np.array([6, 3, 1, 1, 1, 0]), 2)
    (1, 5)

    Raises:
        ConfigError: more blocks than items.
    """
    total = np.cumsum(counts)
    wanted = total[-1] * np.arange(1, num_blocks) / num_blocks
    ends = np.concatenate([[0], np.searchsorted(total, wanted) + 1, [len(counts)]])
    return _filled(np.diff(ends).tolist(), len(counts))


def geometric_ranks(dim: int, num_blocks: int, factor: int) -> tuple[int, ...]:
    """Widths that shrink by `factor` from block to block, at least 1; a single block has one of a `factor`-th.

    >>> geometric_ranks(512, 3, 4), geometric_ranks(512, 1, 4)
    ((512, 128, 32), (128,))
    """
    powers = range(num_blocks) if num_blocks > 1 else (1,)
    return tuple(max(dim // factor**power, 1) for power in powers)


def _filled(sizes: Sequence[int], num_items: int) -> tuple[int, ...]:
    """`sizes` with at least one item each, taken from the last block."""
    if len(sizes) > num_items:
        raise ConfigError(
            f"compression.num_blocks: {len(sizes)} blocks need as many items, the catalog has {num_items}"
        )
    filled: list[int] = []
    for place, size in enumerate(sizes[:-1]):
        later = len(sizes) - 1 - place
        filled.append(min(max(size, 1), num_items - sum(filled) - later))
    return (*filled, num_items - sum(filled))


def _show(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "nothing"
