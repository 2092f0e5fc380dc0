"""Sequences in memory: all users in flat arrays, and the (history, target) pairs that evaluation reads from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Part = Literal["valid", "test"]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Every user's items in time order, flattened; user row ``u`` owns ``items[offsets[u]:offsets[u + 1]]``.

    Attributes:
        users: (U,) user numbers.
        offsets: (U + 1,) borders of the users in `items`.
        items: (I,) item numbers, 1..N.
        train_end: (U,) length of each user's training part.
        valid_end: (U,) end of each user's validation part, counted from the user's first item.
        timestamps: (I,) seconds, or None where the log has no times.
    """

    users: NDArray[np.int32]
    offsets: IntArray
    items: NDArray[np.int32]
    train_end: NDArray[np.int32]
    valid_end: NDArray[np.int32]
    timestamps: IntArray | None = None

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def lengths(self) -> IntArray:
        """(U,) interactions per user."""
        return np.diff(self.offsets)

    @cached_property
    def instance_offsets(self) -> IntArray:
        """(U + 1,) borders of the users' training instances.

        A user with ``n`` training items has ``n - 1`` instances; instance ``t`` has the history ``items[:t + 1]`` and
        the target ``items[t + 1]``. Teacher states are stored in this order.
        """
        counts = np.maximum(self.train_end.astype(np.int64) - 1, 0)
        return np.concatenate([[0], np.cumsum(counts)])

    @property
    def num_instances(self) -> int:
        """Number of training instances (history, target)."""
        return int(self.instance_offsets[-1])

    def without(self, items: IntArray) -> Sequences:
        """The same users without any interaction with `items`; each part keeps what is left of it."""
        kept = ~np.isin(self.items, items)
        before = np.concatenate([[0], np.cumsum(kept)])  # (I + 1,) kept places before each
        starts = before[self.offsets[:-1]]
        return Sequences(
            users=self.users,
            offsets=before[self.offsets],
            items=self.items[kept],
            train_end=(before[self.offsets[:-1] + self.train_end] - starts).astype(np.int32),
            valid_end=(before[self.offsets[:-1] + self.valid_end] - starts).astype(np.int32),
            timestamps=None if self.timestamps is None else self.timestamps[kept],
        )

    def training_items(self, row: int) -> NDArray[np.int32]:
        """The training part of user row `row`."""
        start = self.offsets[row]
        return self.items[start : start + self.train_end[row]]

    def cases(self, part: Part) -> EvaluationCases:
        """The users that `part` evaluates: the first item of the part is the target, all before it the history."""
        cut = (self.train_end if part == "valid" else self.valid_end).astype(np.int64)
        end = self.valid_end.astype(np.int64) if part == "valid" else self.lengths
        rows = np.flatnonzero((cut >= 1) & (cut < end))
        starts = self.offsets[rows]
        return EvaluationCases(self, rows, starts, cut[rows], self.items[starts + cut[rows]].astype(np.int64))


@dataclass(frozen=True)
class EvaluationCases:
    """One (history, target) pair for every evaluated user, in the order of the sequences.

    Attributes:
        rows: (C,) rows of `sequences`.
        starts: (C,) first position of each history in ``sequences.items``.
        lengths: (C,) full length of each history; callers keep its last ``max_length`` items.
        targets: (C,) item numbers.
    """

    sequences: Sequences
    rows: IntArray
    starts: IntArray
    lengths: IntArray
    targets: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def users(self) -> NDArray[np.int32]:
        """(C,) user numbers."""
        return self.sequences.users[self.rows]

    def history(self, case: int) -> NDArray[np.int32]:
        """The whole history of one case, oldest item first."""
        start = self.starts[case]
        return self.sequences.items[start : start + self.lengths[case]]
