"""The ONE scoring path: evaluation, batch recommendation and serving all rank through this file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.compression.heads import TreeHead
from components.compression.top_items import top_items
from components.data.batching import Batch, evaluation_batches, history_batch
from components.data.flat_sequences import EvaluationCases
from components.errors import StageError
from components.model import Ranker
from components.running_top import merge_block, merge_row, take_clear
from components.schema import PAD

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
TILE: Final = 8  # rows of every matrix product in reproducible mode; matrix kernels change with the number of rows
TOKENS: Final = 4096  # items of histories that a CPU encodes at once in evaluation: activations stay in its cache too
MIN_ROWS: Final = 64  # rows that share one reading of a large catalog's vectors
CACHED: Final = 2**18  # scores that are compared at once in evaluation: one MiB stays in the processor's cache


class Scorer:
    """Ranks the catalogue for histories, exactly, in memory bounded by ``batch_size x block_items`` scores.

    Args:
        model: what ranks; it is put into evaluation mode.
        batch_size: histories per pass.
        block_items: items per pass of `top_k`.
        device: where the model runs; it is moved there.
        reproducible: make `top_k` independent of the company of a history in its batch, to the last bit: histories are
            encoded by `Ranker.independent_states` and scored in products of one fixed shape. Serving uses it so that
            batching requests never changes an answer; evaluation of many users does without.
    """

    def __init__(
        self,
        model: Ranker,
        *,
        batch_size: int = 512,
        block_items: int = 65536,
        device: str = "cpu",
        reproducible: bool = False,
    ) -> None:
        if batch_size < 1 or block_items < 1:
            raise ValueError(f"batch_size and block_items must be at least 1, got {batch_size} and {block_items}")
        self.model = model.to(device).eval()
        self.batch_size, self.block_items = batch_size, block_items
        self.device, self.reproducible = device, reproducible

    @torch.inference_mode()
    def positions(self, cases: EvaluationCases, *, mask_history: bool = False, ties: str = "against") -> IntArray:
        """(C,) position of each case's target among all items, 1 = best; counted, never sampled.

        Args:
            cases: histories and targets.
            mask_history: leave every item of the whole history out of the ranking, except the target.
            ties: items that score like the target stand before it (``"against"``), half of them (``"average"``, rounded
                up), or behind it (``"for"``).

        Raises:
            ValueError: an unknown `ties`.
            StageError: the model scores a target with NaN.
        """
        if ties not in ("against", "average", "for"):
            raise ValueError(f"ties must be 'against', 'average' or 'for', got {ties!r}")
        positions = np.empty(len(cases), dtype=np.int64)
        for numbers, batch in evaluation_batches(cases, self.model.max_length, self._histories_at_once()):
            states = self.model.states(batch.to(self.device))
            for part in _slices(len(numbers), self._rows_at_once()):
                ready = self.model.head.ready(states[part])
                positions[numbers[part]] = self._rank(ready, cases, numbers[part], mask_history, ties)
        return positions

    def _rank(
        self, states: Tensor, cases: EvaluationCases, chosen: IntArray, mask_history: bool, ties: str
    ) -> IntArray:
        """(P,) positions of the targets of `chosen`, counted over blocks of items that fit the cache.

        A row meets the block of its own target first and takes the target's score from there, so that the target equals
        itself to the bit; then it meets the other blocks.
        """
        targets, end = cases.targets[chosen], self.model.num_items + 1
        width = self._items_at_once(len(chosen))
        values = torch.empty((len(chosen), 1), device=states.device)  # states may be of another type than scores
        below, not_above = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64)
        for own in (True, False):
            for start in range(1, end, width):
                inside = (targets >= start) & (targets < start + width)
                rows = np.flatnonzero(inside if own else ~inside)
                if not len(rows):
                    continue
                scores = self.model.head.block(states[rows], start, min(start + width, end))
                if own:
                    columns = torch.from_numpy(targets[rows] - start).to(self.device)[:, None]
                    values[rows] = scores.gather(1, columns).to(values)
                if mask_history:
                    scores = _mask(scores, [cases.history(int(case)) for case in chosen[rows]], start)
                    if own:
                        scores.scatter_(1, columns, values[rows].to(scores))
                below[rows] += _count(scores, values[rows], strict=True)
                if ties != "against":
                    not_above[rows] += _count(scores, values[rows], strict=False)
        return _positions(values, below, not_above, self.model.num_items, ties)

    def _histories_at_once(self) -> int:
        if self.device != "cpu":
            return self.batch_size
        return min(self.batch_size, max(16, TOKENS // self.model.max_length))

    def _rows_at_once(self) -> int:
        """Rows whose scores fit the cache, at least as many as make a block of items worth reading."""
        bound = min(CACHED, self.batch_size * self.block_items)
        return max(MIN_ROWS, bound // self.model.num_items)

    def _items_at_once(self, rows: int) -> int:
        """Items whose scores for `rows` rows fit the cache."""
        return min(self.block_items, max(1, CACHED // rows))

    @torch.inference_mode()
    def top_k(
        self,
        histories: Sequence[NDArray[np.int32]],
        k: int,
        *,
        exclude_seen: bool = True,
        users: Sequence[int] | None = None,
        among: Sequence[Mask | None] | None = None,
    ) -> tuple[IntArray, NDArray[np.float32]]:
        """The best items of each history: (B, k) item numbers and (B, k) scores, best first.

        Equal scores are ordered by item number, the more frequent item first. Where fewer than `k` items are left (a
        small catalogue, seen items excluded, scores of -inf or NaN) the row ends in PAD items with the score -inf.

        Args:
            histories: item numbers, oldest first; the model sees the last `max_length`, exclusion the whole.
            k: items per history.
            exclude_seen: leave out the items of the history.
            users: user numbers, 0 where unknown.
            among: for each history (N + 1,) which items may be ranked, None for all. Scores and their order are those
                of the ranking of all items, to the last bit.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        items = np.full((len(histories), k), PAD, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for part in _slices(len(histories), self.batch_size):
            seen = histories[part] if exclude_seen else None
            states = self._states(histories[part], None if users is None else users[part])
            best = self._best_of_tree if isinstance(self.model.head, TreeHead) else self._best
            for rows in _slices(len(states), len(states) if self.reproducible else self._rows_at_once()):
                best(
                    states[rows],
                    None if seen is None else seen[rows],
                    None if among is None else among[part][rows],
                    items[part][rows],
                    scores[part][rows],
                )
        return items, scores

    @torch.inference_mode()
    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """(B, N) scores of all items, column i of item i + 1, from the products that `top_k` ranks."""
        states, end = self._states(histories, None), self.model.num_items + 1
        starts = range(1, end, self.block_items)
        blocks = [self._block(states, start, min(start + self.block_items, end)) for start in starts]
        found: NDArray[np.float32] = torch.cat(blocks, dim=1).float().cpu().numpy()
        return found

    @torch.inference_mode()
    def states_of(self, histories: Sequence[NDArray[np.int32]], users: Sequence[int] | None = None) -> Tensor:
        """(B, D) the states of histories, encoded as for `top_k`."""
        return self._states(histories, users)

    @torch.inference_mode()
    def scores_of(
        self, histories: Sequence[NDArray[np.int32]], items: Sequence[int], users: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """(B, C) scores of the items `items` after each history, all histories in one pass.

        They may differ from those of `top_k` in the last bits.
        """
        states = self.model.states(self._batch(histories, users))
        found = self.model.head.scores(states, torch.tensor(items, device=self.device))
        scores: NDArray[np.float32] = found.float().cpu().numpy()
        return scores

    def _states(self, histories: Sequence[NDArray[np.int32]], users: Sequence[int] | None) -> Tensor:
        """(B, D); in reproducible mode one history does not change another's to the last bit."""
        if self.reproducible:
            return self.model.independent_states(self._batch(histories, users))
        found = [
            self.model.states(self._batch(histories[part], None if users is None else users[part]))
            for part in _slices(len(histories), self._histories_at_once())
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _batch(self, histories: Sequence[NDArray[np.int32]], users: Sequence[int] | None) -> Batch:
        batch = history_batch(list(histories), self.model.max_length, None if users is None else list(users))
        return batch.to(self.device)

    def _best(
        self,
        states: Tensor,
        seen: Sequence[NDArray[np.int32]] | None,
        among: Sequence[Mask | None] | None,
        items: IntArray,
        scores: NDArray[np.float32],
    ) -> None:
        """Fill `items` and `scores` (B, k) in place, block by block; earlier blocks hold the lower item numbers."""
        end = self.model.num_items + 1
        width = self.block_items if self.reproducible else self._items_at_once(len(states))
        for start in range(1, end, width):
            block = self._block(states, start, min(start + width, end))
            if seen is not None:
                block = _mask(block, seen, start)
            if among is not None:
                block = _barred(block, among, start)
            block = block.float()
            left = np.arange(len(items)) if start > 1 else take_clear(block, items, scores)
            if len(left) == len(items):
                merge_block(block.cpu().numpy(), start, items, scores)
            elif len(left):
                found = block.cpu().numpy()
                for row in left:
                    merge_row(found[row], start, items[row], scores[row])

    def _best_of_tree(
        self,
        states: Tensor,
        seen: Sequence[NDArray[np.int32]] | None,
        among: Sequence[Mask | None] | None,
        items: IntArray,
        scores: NDArray[np.float32],
    ) -> None:
        """As `_best`, without a look at blocks that cannot hold a best item."""
        head = cast(TreeHead, self.model.head)
        for part in _slices(len(states), 1 if self.reproducible else len(states)):
            left_out = None if seen is None else seen[part]
            found = top_items(
                head, states[part], items.shape[1], left_out, among=None if among is None else among[part]
            )
            numbers, values = found.items.cpu().numpy(), found.scores.float().cpu().numpy()
            order = np.lexsort((numbers, -values))
            items[part], scores[part] = np.take_along_axis(numbers, order, 1), np.take_along_axis(values, order, 1)

    def _block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(B, stop - start) scores; in reproducible mode from products of exactly `TILE` rows."""
        if not self.reproducible:
            return self.model.head.block(states, start, stop)
        padded = torch.nn.functional.pad(states, (0, 0, 0, -len(states) % TILE))
        tiles = [self.model.head.block(padded[part], start, stop) for part in _slices(len(padded), TILE)]
        return torch.cat(tiles)[: len(states)]


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, length)) for begin in range(0, length, size))


def _mask(scores: Tensor, histories: Sequence[NDArray[np.int32]], start: int) -> Tensor:
    """Set the score of every item of a row's history to -inf; column 0 belongs to item `start`."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.concatenate(histories).astype(np.int64) - start if len(rows) else np.empty(0, np.int64)
    inside = (columns >= 0) & (columns < scores.shape[1])
    flat = torch.from_numpy(rows[inside] * scores.shape[1] + columns[inside]).to(scores.device)
    scores = scores.contiguous()
    scores.view(-1)[flat] = -torch.inf
    return scores


def _barred(scores: Tensor, among: Sequence[Mask | None], start: int) -> Tensor:
    """(B, C) scores, -inf where a row's mask does not let an item pass; column 0 belongs to item `start`."""
    barred = np.zeros(scores.shape, dtype=np.bool_)
    for row, mask in enumerate(among):
        if mask is not None:
            barred[row] = ~mask[start : start + scores.shape[1]]
    return scores.masked_fill(torch.from_numpy(barred).to(scores.device), -torch.inf)


def _positions(values: Tensor, below: IntArray, not_above: IntArray, items: int, ties: str) -> IntArray:
    """(P,) positions of targets that score `values` from counts over `items`; a NaN stands before the target."""
    if bool(values.isnan().any()):
        raise StageError("the model scores an item with NaN; its training diverged, lower the learning rate")
    worst, best = items - below, items + 1 - not_above
    if ties == "against":
        return worst
    return best if ties == "for" else (best + worst + 1) // 2


def _count(scores: Tensor, targets: Tensor, *, strict: bool) -> IntArray:
    """(P,) scores of a row that are below its target, or (not strict) not above it."""
    counted: IntArray
    if scores.is_cuda:
        counted = ((scores < targets) if strict else (scores <= targets)).sum(1).cpu().numpy()
        return counted
    compare = np.less if strict else np.less_equal  # three times faster than torch's comparison and sum on a CPU
    counted = compare(scores.float().numpy(), targets.float().numpy()).sum(axis=1, dtype=np.int32).astype(np.int64)
    return counted


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: answers then do not depend on how many cores the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
