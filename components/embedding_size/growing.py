"""Tables that grow with the stream, a step of an eighth at a time: what is added one by one is not copied each time."""

from __future__ import annotations

import torch
from torch import Tensor


def reserve(table: Tensor, count: int, fill: Tensor | float = 0) -> Tensor:
    """`table` with room for at least `count` rows; new ones hold `fill`.

    >>> len(reserve(torch.zeros(8), 9)), len(reserve(torch.zeros(8), 8))
    (9, 8)
    """
    if count <= len(table):
        return table
    grown = torch.empty((max(count, len(table) * 9 // 8), *table.shape[1:]), dtype=table.dtype)
    grown[: len(table)] = table
    grown[len(table) :] = fill
    return grown
