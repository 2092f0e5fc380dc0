"""Batches of variable length: windows over the training part, grouped by length so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.data.flat_sequences import EvaluationCases, Sequences
from components.schema import PAD

IntArray = NDArray[np.int64]
Windows = Literal["last", "all"]
POOL = 64  # batches that are shuffled together before they are sorted by length


@dataclass(frozen=True)
class Batch:
    """Sequences, and the positions in them from which an item is predicted.

    In training every position with a successor is predicted; in evaluation and serving only each row's last one.

    Attributes:
        items: (B, L) item numbers, padded on the right with PAD.
        lengths: (B,) items per row.
        users: (B,) user numbers, 0 where unknown.
        positions: (P,) flat indices into the B x L grid, ascending.
        targets: (P,) the item that follows; empty where unknown.
        instances: (P,) training instance numbers (rows of the teachers' states); empty outside training.
    """

    items: Tensor
    lengths: Tensor
    users: Tensor
    positions: Tensor
    targets: Tensor
    instances: Tensor

    def __len__(self) -> int:
        return self.items.shape[0]

    @property
    def rows(self) -> Tensor:
        """(P,) the row of each position."""
        return torch.div(self.positions, self.items.shape[1], rounding_mode="floor")

    @property
    def last_only(self) -> bool:
        """Whether exactly the last position of every row is predicted."""
        return self.instances.numel() == 0

    def alone(self, row: int) -> Batch:
        """An inference batch of one row of this one, without padding."""
        if len(self) == 1:
            return self
        lengths = self.lengths[row : row + 1]
        items = self.items[row : row + 1, : int(lengths)]
        return replace(self, items=items, lengths=lengths, users=self.users[row : row + 1], positions=lengths - 1)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def history_batch(
    histories: list[NDArray[np.int32]] | list[list[int]], max_length: int, users: list[int] | None = None
) -> Batch:
    """Build the batch that scores the item after each history.

    Args:
        histories: item numbers, oldest first; the last `max_length` of each are kept. An empty one becomes one PAD.
        max_length: longest row.
        users: user numbers, 0 where unknown.
    """
    kept = [history[-max_length:] for history in histories]
    sizes = np.fromiter(map(len, kept), dtype=np.int64, count=len(kept))
    lengths = np.maximum(sizes, 1)
    grid = np.full((len(kept), int(lengths.max(initial=1))), PAD, dtype=np.int64)
    if sizes.any():
        grid[np.arange(grid.shape[1]) < sizes[:, None]] = np.concatenate(kept)
    return _inference(grid, lengths, np.zeros(len(kept), np.int64) if users is None else np.asarray(users, np.int64))


def _inference(grid: IntArray, lengths: IntArray, users: IntArray) -> Batch:
    positions = np.arange(len(grid)) * grid.shape[1] + lengths - 1
    empty = torch.empty(0, dtype=torch.int64)
    return Batch(
        torch.from_numpy(grid),
        torch.from_numpy(lengths),
        torch.from_numpy(users),
        torch.from_numpy(positions),
        empty,
        empty,
    )


def _gather(items: NDArray[np.int32], starts: IntArray, lengths: IntArray) -> IntArray:
    """(B, L) rows ``items[start : start + length]``, padded on the right."""
    offsets = np.arange(int(lengths.max(initial=1)))
    index = starts[:, None] + offsets[None, :]
    valid = offsets[None, :] < lengths[:, None]
    return np.where(valid, items[np.minimum(index, len(items) - 1)], PAD).astype(np.int64)


def evaluation_batches(cases: EvaluationCases, max_length: int, batch_size: int) -> Iterator[tuple[IntArray, Batch]]:
    """Yield (case numbers, batch) over all cases, shortest first, so that rows of a batch are alike."""
    lengths = np.minimum(cases.lengths, max_length)
    order = np.argsort(lengths, kind="stable")
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size]
        starts = cases.starts[chosen] + cases.lengths[chosen] - lengths[chosen]
        grid = _gather(cases.sequences.items, starts, lengths[chosen])
        yield chosen, _inference(grid, lengths[chosen], cases.users[chosen].astype(np.int64))


class TrainingBatches:
    """The training part as shuffled batches; batch ``b`` of epoch ``e`` is a pure function of the seed.

    A *window* is a run of at most ``max_length`` + 1 consecutive training items of one user; all but the first are
    targets. With ``windows="last"`` each user gives the latest window; with ``"all"`` windows tile the whole training
    part and, after the first epoch, their borders move at random so that every item is seen with different context.

    Args:
        sequences: the prepared sequences.
        max_length: longest input L.
        batch_size: windows per batch.
        windows: which windows of a long sequence are used.
        seed: source of every shuffle.
    """

    def __init__(
        self, sequences: Sequences, max_length: int, batch_size: int, windows: Windows = "last", seed: int = 0
    ) -> None:
        self.sequences, self.max_length, self.batch_size = sequences, max_length, batch_size
        self.windows, self.seed = windows, seed
        self._rows = np.flatnonzero(sequences.train_end >= 2).astype(np.int64)

    def epoch(self, epoch: int) -> list[IntArray]:
        """The plan of one epoch: per batch (B, 3) windows: user row, first input, number of inputs."""
        generator = np.random.default_rng([self.seed, epoch])
        return self._shuffled(self._cut(generator if epoch else None), generator)

    def _shuffled(self, windows: IntArray, generator: np.random.Generator) -> list[IntArray]:
        """Random batches of windows that are alike in length, in random order."""
        windows = windows[generator.permutation(len(windows))]
        pool = self.batch_size * POOL
        batches: list[IntArray] = []
        for begin in range(0, len(windows), pool):
            group = windows[begin : begin + pool]
            group = group[np.argsort(group[:, 2], kind="stable")]
            batches += [group[i : i + self.batch_size] for i in range(0, len(group), self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def batch(self, windows: IntArray) -> Batch:
        """Materialize one entry of the plan."""
        sequences = self.sequences
        rows, first, lengths = windows[:, 0], windows[:, 1], windows[:, 2]
        starts = sequences.offsets[rows] + first
        grid = _gather(sequences.items, starts, lengths)
        mask = np.arange(grid.shape[1])[None, :] < lengths[:, None]
        positions = np.flatnonzero(mask)
        row, column = positions // grid.shape[1], positions % grid.shape[1]
        targets = sequences.items[starts[row] + column + 1].astype(np.int64)
        instances = sequences.instance_offsets[rows[row]] + first[row] + column
        users = sequences.users[rows].astype(np.int64)
        return Batch(*(torch.from_numpy(array) for array in (grid, lengths, users, positions, targets, instances)))

    def num_targets(self, windows: IntArray) -> int:
        """How many targets the batch of `windows` has."""
        return int(windows[:, 2].sum())

    def _cut(self, generator: np.random.Generator | None) -> IntArray:
        """(W, 3) windows; `generator` moves the borders, None leaves the last window whole."""
        inputs = self.sequences.train_end[self._rows].astype(np.int64) - 1
        length = self.max_length
        if self.windows == "last" or inputs.max(initial=0) <= length:
            size = np.minimum(inputs, length)
            return np.stack([self._rows, inputs - size, size], axis=1)
        shift = np.zeros_like(inputs)
        if generator is not None:
            shift = np.where(inputs > length, generator.integers(0, length, size=len(inputs)), 0)
        count = -(-(inputs + shift) // length)  # the last window of a shifted row is the one that is cut short
        owner = np.repeat(np.arange(len(inputs)), count)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        stop = inputs[owner] + shift[owner] - step * length
        begin = np.maximum(stop - length, 0)
        stop = np.minimum(stop, inputs[owner])
        keep = stop > begin
        windows: IntArray = np.stack([self._rows[owner], begin, stop - begin], axis=1)[keep]
        return windows


class PrefixBatches(TrainingBatches):
    """One target per user and epoch, drawn at random from the training part; its history is all before it.

    For models that read a history newest item first: each position then costs a sequence of its own. The first item
    can be drawn too; its history is empty, one PAD.

    Args:
        sequences: the prepared sequences.
        max_length: longest history.
        batch_size: targets per batch.
        seed: source of every draw and shuffle.
        second_half: draw from ``floor((n - 1) / 2) .. n - 1`` of a user's n items only.
    """

    def __init__(
        self, sequences: Sequences, max_length: int, batch_size: int, seed: int = 0, *, second_half: bool = False
    ) -> None:
        super().__init__(sequences, max_length, batch_size, "last", seed)
        self.second_half = second_half

    def epoch(self, epoch: int) -> list[IntArray]:
        """The plan of one epoch: per batch (B, 3) windows: user row, first input, number of inputs."""
        generator = np.random.default_rng([self.seed, epoch])
        length = self.sequences.train_end[self._rows].astype(np.int64)
        target = generator.integers((length - 1) // 2 if self.second_half else 0, length)
        size = np.minimum(target, self.max_length)
        return self._shuffled(np.stack([self._rows, target - size, size], axis=1), generator)

    def batch(self, windows: IntArray) -> Batch:
        """Materialize one entry of the plan: one position per row, the last."""
        sequences = self.sequences
        rows, first, sizes = windows[:, 0], windows[:, 1], windows[:, 2]
        starts = sequences.offsets[rows] + first
        grid = _gather(sequences.items, starts, sizes)
        batch = _inference(grid, np.maximum(sizes, 1), sequences.users[rows].astype(np.int64))
        return replace(batch, targets=torch.from_numpy(sequences.items[starts + sizes].astype(np.int64)))

    def num_targets(self, windows: IntArray) -> int:
        """One per window."""
        return len(windows)
