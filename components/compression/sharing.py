"""Which layers of a stack share their weights (CpRec, section 3.3); layer norms are never shared."""

from __future__ import annotations

from typing import Literal

Sharing = Literal["none", "cl", "cb", "al", "ab"]


def shared_kernels(num_blocks: int, sharing: Sharing) -> tuple[tuple[int, int], ...]:
    """For each block of two layers the numbers, from 0, of the weights that its first and its second layer use.

    Args:
        num_blocks: blocks of two layers.
        sharing: "cl" all layers share one; "cb" all blocks share two; "al" the two layers of a block share one; "ab"
            two neighboring blocks share two, and of an odd number the last block keeps its own.

    >>> shared_kernels(3, "none"), shared_kernels(3, "cl")
    (((0, 1), (2, 3), (4, 5)), ((0, 0), (0, 0), (0, 0)))
    >>> shared_kernels(3, "cb"), shared_kernels(3, "al"), shared_kernels(3, "ab")
    (((0, 1), (0, 1), (0, 1)), ((0, 0), (1, 1), (2, 2)), ((0, 1), (0, 1), (2, 3)))
    """
    blocks = range(num_blocks)
    first = {
        "none": [2 * block for block in blocks],
        "cl": [0] * num_blocks,
        "cb": [0] * num_blocks,
        "al": list(blocks),
        "ab": [block // 2 * 2 for block in blocks],
    }[sharing]
    apart = sharing in ("none", "cb", "ab")  # the second layer of a block has weights of its own
    return tuple((number, number + apart) for number in first)
