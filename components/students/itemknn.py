"""Item-KNN: items that the same users have, by cosine (Sarwar et al. 2001; Deshpande & Karypis 2004)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array
from torch import Tensor

from components.data.batching import Batch
from components.data.interactions import training_matrix
from components.model import Catalog, Ranker
from components.schema import PAD
from components.students.counted import CountedHead, entries
from components.students.mostpop import smoothed_shares

PAIRS_AT_ONCE = 2**22  # co-occurring pairs that are counted before all but the nearest are forgotten


class ItemKNNConfig(BaseModel):
    """Arguments of the item-KNN baseline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    neighbors: int = Field(100, ge=1, description="most similar items that are kept of each item")
    shrinkage: float = Field(10.0, ge=0, description="added to the divisor of a cosine: distrusts what few users share")
    max_length: int = Field(50, ge=1, description="last items of a history that count")
    decay: float = Field(1.0, gt=0, le=1, description="factor on an item's weight per step back from the last; 1: none")


class NeighborHead(CountedHead):
    """Score = sum over the history of ``decay ** age * similarity``; a state is the history, newest item first.

    Where no item of the history is similar the score is the log of the item's share of all interactions: below 0, so
    that what is similar stands before what is not, and what is not stands in the order of its popularity.

    Args:
        prior: (N,) log shares of items 1..N.
        offsets: (N + 2,) borders of the rows 0..N in `neighbors`; row PAD is empty.
        neighbors: (T,) item numbers, ascending within a row.
        similarities: (T,) above 0.
        decay: factor per step back.
    """

    def __init__(self, prior: Tensor, offsets: Tensor, neighbors: Tensor, similarities: Tensor, decay: float) -> None:
        super().__init__(prior)
        self.decay = decay
        self.register_buffer("offsets", offsets)
        self.register_buffer("neighbors", neighbors)
        self.register_buffer("similarities", similarities)
        self.offsets: Tensor
        self.neighbors: Tensor
        self.similarities: Tensor

    def dense(self, states: Tensor, prior: Tensor, column: Tensor) -> Tensor:
        """See `CountedHead.dense`; states are (P, L)."""
        return self._sums(self.offsets[states], self.offsets[states + 1], prior, column)

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, L) -> (P, stop - start)."""
        column = torch.arange(-start, len(self.prior) + 1 - start, device=states.device)
        begin, end = self.offsets[states], self.offsets[states + 1]
        begin, end = self._search(begin, end, start), self._search(begin, end, stop)
        return self._sums(begin, end, self.prior[start - 1 : stop - 1], column)

    def _search(self, low: Tensor, high: Tensor, item: int) -> Tensor:
        """First place in ``low .. high`` whose neighbor is not below `item`, by bisection of all rows at once.

        A block of a large catalog then costs what lies in it, not all neighbors of the history.
        """
        for _ in range(len(self.prior).bit_length() if len(self.neighbors) else 0):
            middle = (low + high) // 2
            below = self.neighbors[middle.clamp(max=len(self.neighbors) - 1)] < item
            searching = low < high
            low, high = torch.where(searching & below, middle + 1, low), torch.where(searching & ~below, middle, high)
        return low

    def _sums(self, begin: Tensor, end: Tensor, prior: Tensor, column: Tensor) -> Tensor:
        """(P, C) scores from the places ``begin .. end - 1`` (P, L) in `neighbors`.

        `column` (N + 1,) says where an item's score goes, negative for nowhere.
        """
        owner, entry = entries(begin.flatten(), end.flatten())  # (T,) which of the P x L histories' items
        columns = column[self.neighbors[entry].long()]
        kept = torch.nonzero(columns >= 0)[:, 0]
        age = owner[kept] % begin.shape[1]
        weights = self.similarities[entry[kept]] * self.decay**age
        total = self.prior.new_zeros(len(begin), len(prior))
        total.index_put_((owner[kept] // begin.shape[1], columns[kept]), weights, accumulate=True)
        return torch.where(total > 0, total, prior)


class ItemKNN(Ranker):
    """Ranks by similarity with the items of the history; an item that occurs twice counts twice.

    Args:
        head: the similar items of every item.
        max_length: items of a history that count.
    """

    def __init__(self, head: NeighborHead, max_length: int) -> None:
        super().__init__()
        self.head: NeighborHead = head
        self.num_items, self.max_length = len(head.prior), max_length

    def states(self, batch: Batch) -> Tensor:
        """(P, max_length) the items up to each predicted position, newest first, then PAD."""
        width = batch.items.shape[1]
        column = (batch.positions % width)[:, None] - torch.arange(self.max_length, device=batch.items.device)
        items = batch.items[batch.rows[:, None], column.clamp(min=0)]
        return torch.where(column >= 0, items, PAD)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the saved neighbors, however many there are."""
        for name in ("neighbors", "similarities"):
            setattr(self.head, name, torch.empty_like(tensors[f"head.{name}"]))
        super().load_tensors(tensors)


def similar_items(owned: csr_array, neighbors: int, shrinkage: float) -> csr_array:
    """(N + 1, N + 1) similarities of each item with its nearest others, columns ascending within a row.

    ``sim(i, j) = |U_i and U_j| / (sqrt(|U_i| |U_j|) + shrinkage)`` with ``U_i`` the users of item i. Of equally similar
    items the lower numbers are kept. Memory is bounded: items are taken in blocks of `PAIRS_AT_ONCE` pairs.

    Args:
        owned: (U + 1, N + 1) binary, users by items.
        neighbors: how many are kept at most.
        shrinkage: in users.

    >>> similar_items(csr_array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]), 1, 0.0).toarray().round(2).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.71, 0.0, 0.0]]
    """
    owners = owned.T.tocsr()  # (N + 1, U + 1)
    roots = np.sqrt(np.diff(owners.indptr).astype(np.float64))
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    for rows in _blocks(owners, owned):
        shared = owners[rows] @ owned  # (n, N + 1) users in common
        shared.sort_indices()
        row = np.repeat(np.arange(rows.start, rows.stop), np.diff(shared.indptr))
        column = shared.indices.astype(np.int64)
        values = (shared.data / (roots[row] * roots[column] + shrinkage)).astype(np.float32)
        others = np.flatnonzero(row != column)
        nearest = others[_nearest(row[others], values[others], neighbors)]
        parts.append((row[nearest], column[nearest], values[nearest]))
    row, column, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    borders = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=owned.shape[1]))])
    return csr_array((values, column, borders), shape=(owned.shape[1], owned.shape[1]))


def _blocks(owners: csr_array, owned: csr_array) -> Iterator[slice]:
    """Consecutive items whose pairs are at most `PAIRS_AT_ONCE`, or one item."""
    pairs = np.minimum(owners @ np.diff(owned.indptr).astype(np.float64), owned.shape[1])  # (N + 1,) at most so many
    ends, begin = np.cumsum(pairs), 0
    while begin < len(ends):
        done = ends[begin - 1] if begin else 0.0
        end = max(begin + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        yield slice(begin, end)
        begin = end


def _nearest(rows: NDArray[np.int64], values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places, ascending, of the `count` largest values of every row; `rows` ascend and `values` are above 0."""
    # The bits of positive floats are ordered like the floats: one stable sort of integers finds the largest first.
    order = np.argsort((rows << 32) | (np.int64(2**31) - values.view(np.int32)), kind="stable")
    sizes = np.bincount(rows)
    position = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[position < count])


def build(catalog: Catalog, config: ItemKNNConfig) -> ItemKNN:
    """Compare the items of the catalog's training parts; without sequences nothing is similar."""
    owned = training_matrix(catalog.sequences, catalog.num_users, catalog.num_items)
    similar = similar_items(owned, config.neighbors, config.shrinkage)
    head = NeighborHead(
        torch.from_numpy(np.log(smoothed_shares(catalog.counts)).astype(np.float32)),
        torch.from_numpy(similar.indptr.astype(np.int64)),
        torch.from_numpy(similar.indices.astype(np.int32)),
        torch.from_numpy(similar.data.astype(np.float32)),
        config.decay,
    )
    return ItemKNN(head, config.max_length)
