"""k-core: drop users and items with too few interactions, again and again until none is left to drop.

Users are whole within a partition, so only item counts travel: every round, partitions count the items among the users
who remain, the driver adds the counts up and tells which items survive. The log itself never moves nor changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.partition import codes_of, count_marked, offsets_of, trim
from components.data.tally import dense

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Core:
    """Which items survive.

    Attributes:
        alive: (N,) by item code.
        items_per_round: items left after each round; the last two are equal.
    """

    alive: Mask
    items_per_round: list[int]


def surviving_rows(partition: pa.Table, alive: Mask, min_per_user: int) -> Mask:
    """(I,) the interactions with living items, of users who have at least `min_per_user` of them."""
    offsets = offsets_of(partition)
    rows: Mask = alive[codes_of(partition)]
    enough = count_marked(rows, offsets) >= min_per_user
    rows &= np.repeat(enough, np.diff(offsets))
    return rows


def count_items(partition: pa.Table, alive: Mask, min_per_user: int) -> pa.Table:
    """A tally ``items``: interactions per item code among the surviving rows."""
    rows = surviving_rows(partition, alive, min_per_user)
    return dense("items", np.bincount(codes_of(partition)[rows], minlength=len(alive)))


def keep_core(partition: pa.Table, alive: Mask, min_per_user: int) -> pa.Table:
    """The partition without the rows outside the core."""
    return trim(partition, surviving_rows(partition, alive, min_per_user))


def find_core(count: Callable[[Mask], IntArray], candidates: Mask, min_per_item: int) -> Core:
    """Iterate to the fixpoint.

    Args:
        count: interactions per item among the users who survive under the given items.
        candidates: (N,) items that may survive.
        min_per_item: interactions that an item needs.

    >>> find_core(lambda alive: np.array([3, 1]) * alive, np.array([True, True]), 2).items_per_round
    [1, 1]
    """
    alive, sizes = candidates, []
    while True:
        surviving = alive & (count(alive) >= min_per_item)
        sizes.append(int(surviving.sum()))
        if np.array_equal(surviving, alive) or not sizes[-1]:
            return Core(surviving, sizes)
        alive = surviving
