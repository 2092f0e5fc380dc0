"""Running lists of the best items, into which the scores of one block of items after another are merged."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
SPARSE: Final = 64  # items per wanted item from which on torch's topk searches by a heap
FEW: Final = 3  # rows; what handles all rows at once costs more than handling so few one by one


def merge_block(block: FloatArray, start: int, items: IntArray, scores: FloatArray) -> None:
    """Merge a block's scores into the running lists, in place.

    Equal scores are ordered by item number. A NaN, and what scores -inf, enters no list.

    Args:
        block: (B, W) scores of the items ``start .. start + W - 1``; blocks come by rising item number.
        start: the first item.
        items: (B, k) item numbers so far, best first.
        scores: (B, k) their scores; -inf where nothing is yet.
    """
    if len(items) <= FEW:
        for row in range(len(items)):
            merge_row(block[row], start, items[row], scores[row])
        return
    flat = np.flatnonzero(_promising(block, scores))
    rows = flat // block.shape[1]
    counts = np.bincount(rows, minlength=len(items))
    crowded = counts > items.shape[1]  # ties at the end of a list, or too few scores that are numbers
    if crowded.any():
        for row in np.flatnonzero(crowded).tolist():
            merge_row(block[row], start, items[row], scores[row])
        keep = ~crowded[rows]
        flat, rows, counts = flat[keep], rows[keep], np.where(crowded, 0, counts)
    if len(flat):
        _merge_few(block, start, flat, rows, counts, items, scores)


def merge_row(row: FloatArray, start: int, items: IntArray, scores: FloatArray) -> None:
    """As `merge_block`, for one list (k,)."""
    k = len(items)
    candidates = np.flatnonzero(row > scores[-1])  # false for NaN and for masked items
    if len(candidates) > k:
        values = row[candidates]
        threshold = np.partition(values, len(values) - k)[len(values) - k]
        certain = candidates[values > threshold]
        candidates = np.concatenate([certain, candidates[values == threshold][: k - len(certain)]])
    if len(candidates) == 0:
        return
    merged_items = np.concatenate([items, candidates + start])
    merged_scores = np.concatenate([scores, row[candidates]])
    order = np.argsort(-merged_scores, kind="stable")[:k]
    items[:], scores[:] = merged_items[order], merged_scores[order]


def take_clear(block: Tensor, items: IntArray, scores: NDArray[np.float32]) -> IntArray:
    """Fill the rows of `items` and `scores` (B, k) whose best of the catalog's first `block` (B, C) are beyond doubt.

    Returns the numbers of the others: rows with equal scores among the best, which item numbers must order, or with
    scores that are no numbers. A search by heap is several times faster than `merge_block` where k is small beside C.
    """
    k = items.shape[1]
    if (k + 1) * SPARSE > block.shape[1]:
        return np.arange(len(items))
    values, places = (found.cpu().numpy() for found in block.topk(k + 1, dim=1))
    clear = (values[:, 1:] < values[:, :-1]).all(axis=1)
    items[clear], scores[clear] = places[clear, :k] + 1, values[clear, :k]
    return np.flatnonzero(~clear)


def _promising(block: FloatArray, scores: FloatArray) -> NDArray[np.bool_]:
    """(B, W) what may enter a list: what is above its end, or where lists are not full the best k of the block.

    At least k of a row, and more where scores are equal at the end.
    """
    k, last = scores.shape[1], scores[:, -1:]
    promising: NDArray[np.bool_]
    if block.shape[1] <= k or (last > -np.inf).all():
        promising = block > last
        return promising
    place = block.shape[1] - k
    sorted_from_place = np.partition(block, place, axis=1)[:, place:]
    if np.isnan(sorted_from_place).any():  # numpy takes them for the largest
        return _promising(np.where(np.isnan(block), -np.float32(np.inf), block), scores)
    promising = block >= sorted_from_place[:, :1]
    return promising


def _merge_few(
    block: FloatArray,
    start: int,
    flat: IntArray,
    rows: IntArray,
    counts: IntArray,
    items: IntArray,
    scores: FloatArray,
) -> None:
    """Merge the entries `flat` of the block, ascending, of which row ``rows[i]`` has ``counts[rows[i]]`` <= k."""
    width, k = int(counts.max()), items.shape[1]
    values, numbers = block.reshape(-1)[flat], flat - rows * block.shape[1] + start
    if len(flat) == len(items) * width:
        values, numbers = values.reshape(-1, width), numbers.reshape(-1, width)
    else:
        columns = np.arange(len(flat)) - (np.cumsum(counts) - counts)[rows]
        scored, numbered = np.full((len(items), width), -np.inf, np.float32), np.zeros((len(items), width), np.int64)
        scored[rows, columns], numbered[rows, columns] = values, numbers
        values, numbers = scored, numbered
    if width < k or (scores[:, 0] > -np.inf).any():
        values, numbers = np.concatenate([scores, values], axis=1), np.concatenate([items, numbers], axis=1)
    order = descending(values)[:, :k]
    items[:], scores[:] = np.take_along_axis(numbers, order, 1), np.take_along_axis(values, order, 1)


def descending(values: FloatArray) -> IntArray:
    """(B, W) columns of each row from the largest value to the smallest; equal ones as they stand. No value is NaN.

    A value and its column make one integer, so that one fast sort orders both.

    >>> descending(np.array([[1.0, 3.0, 1.0, 2.0]], dtype=np.float32)).tolist()
    [[1, 3, 0, 2]]
    """
    bits = (np.float32(0) - values).view(np.int32)  # 0 - x is never -0.0, whose bits differ from those of 0.0
    keys = ((bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64) << 32) | np.arange(values.shape[1])
    keys.sort(axis=1)
    columns: IntArray = keys & 0xFFFFFFFF
    return columns
