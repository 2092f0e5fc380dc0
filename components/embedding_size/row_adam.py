"""Rows of a table that Adam changes only where they occur: what a dense Adam would have done meanwhile is made up for.

A dense Adam moves every row at every step, by the momentum of gradients long past; a step then costs what the whole
table costs. Between two occurrences of a row its moments only decay, so the sum of its moves has a closed form: with
r = beta1 / sqrt(beta2) and c(t) the bias correction of step t, the row moves by -lr * m / sqrt(v) * sum_j r^j c(s + j).
"""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor

BETA1: Final = 0.9
BETA2: Final = 0.999
EPSILON: Final = 1e-8
_RATIO: Final = BETA1 / BETA2**0.5
_CORRECTED: Final = 20_000  # steps after which the bias corrections are 1 to nine digits
_SLACK: Final = 64  # rows a table may have too many, and an eighth of what it holds


class Rows:
    """A growable (N, d) float32 table with the state of Adam per row; freed rows are given out again.

    Args:
        width: d.
        learning_rate: of Adam.
        drift: whether rows move while they do not occur, as under a dense Adam.

    Attributes:
        values: (capacity, d).
        used: rows that were ever given out, the free ones among them.
    """

    def __init__(self, width: int, learning_rate: float, *, drift: bool = True) -> None:
        self.width, self.learning_rate, self.drift = width, learning_rate, drift
        self.values, self.first, self.second = (torch.empty(0, width) for _ in range(3))
        self.touched = torch.empty(0, dtype=torch.int32)  # step up to which a row has moved
        self.free = torch.empty(0, dtype=torch.int64)
        self.used = 0

    def __len__(self) -> int:
        """Rows that hold something."""
        return self.used - len(self.free)

    @property
    def held_bytes(self) -> int:
        """What the table itself takes now, free and spare rows included."""
        return self.values.untyped_storage().nbytes()

    @property
    def state_bytes(self) -> int:
        """What learning takes beside the table: two moments, and a step per row."""
        return sum(one.untyped_storage().nbytes() for one in (self.first, self.second, self.touched))

    def take(self, values: Tensor) -> Tensor:
        """Put (n, d) new rows in, with zero moments; returns their places, freed ones first."""
        wanted = len(values)
        again = self.free[len(self.free) - min(wanted, len(self.free)) :]
        self.free = self.free[: len(self.free) - len(again)]
        fresh = torch.arange(self.used, self.used + wanted - len(again))
        self._reserve(self.used + len(fresh))
        self.used += len(fresh)
        rows = torch.cat([again, fresh])
        self.write(rows, values)
        return rows

    def write(self, rows: Tensor, values: Tensor) -> None:
        """Replace rows; their moments are zero again."""
        self.values[rows] = values
        self.first[rows] = 0
        self.second[rows] = 0
        self.touched[rows] = 0

    def release(self, rows: Tensor) -> None:
        """Give rows back; `compact` gives their memory back."""
        self.free = torch.cat([self.free, rows])

    @property
    def wasteful(self) -> bool:
        """Whether more is free than a table may have too much."""
        return len(self.free) > _SLACK + len(self) // 8

    def compact(self) -> tuple[Tensor, Tensor]:
        """Close the gaps and shrink to what is held; returns the places (from, to) of the rows that moved."""
        live = len(self)
        gaps = self.free[self.free < live].sort().values
        kept = torch.ones(self.used, dtype=torch.bool)
        kept[self.free] = False
        moved = torch.nonzero(kept[live:]).flatten() + live
        for name in ("values", "first", "second", "touched"):
            table = getattr(self, name)
            table[gaps] = table[moved]
            setattr(self, name, table[:live].clone())
        self.used, self.free = live, self.free[:0]
        return moved, gaps

    def peek(self, rows: Tensor, step: int) -> Tensor:
        """(n, d) copy of rows as they stand after `step` steps; changes nothing."""
        values = self.values[rows]
        if self.drift:
            values = values + self._moves(rows, self.first[rows], self.second[rows], step)
        return values

    def read(self, rows: Tensor, step: int) -> Tensor:
        """(n, d) copy of distinct rows as they stand after `step` steps; they are brought there."""
        if not self.drift:
            return self.values[rows]
        first, second = self.first[rows], self.second[rows]
        waited = (step - self.touched[rows]).clamp(min=0).double().unsqueeze(1)
        values = self.values[rows] + self._moves(rows, first, second, step)
        self.values[rows] = values
        self.first[rows] = first * (BETA1**waited).to(first.dtype)
        self.second[rows] = second * (BETA2**waited).to(second.dtype)
        self.touched[rows] = step
        return values.clone()

    def update(self, rows: Tensor, gradient: Tensor, step: int) -> None:
        """Step number `step` (from 1) of distinct rows that were `read` at the step before it."""
        first = self.first[rows].lerp_(gradient, 1 - BETA1)
        second = self.second[rows].mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        scale = (1 - BETA2**step) ** 0.5
        size = self.learning_rate / (1 - BETA1**step)
        self.values[rows] = self.values[rows].addcdiv_(first, (second.sqrt() / scale).add_(EPSILON), value=-size)
        self.first[rows], self.second[rows] = first, second
        self.touched[rows] = step

    def _moves(self, rows: Tensor, first: Tensor, second: Tensor, step: int) -> Tensor:
        """(n, d) how far rows have moved since they were touched last."""
        since = self.touched[rows].long()
        waited = (step - since).clamp(min=0)
        sums = _tail(since) - _RATIO ** waited.double() * _tail(since + waited)  # sum over j = 1..waited
        return (-self.learning_rate * sums).to(first.dtype).unsqueeze(1) * first / (second.sqrt() + EPSILON)

    def _reserve(self, rows: int) -> None:
        if rows <= len(self.values):
            return
        capacity = max(rows, self.used + self.used // 8) + (_SLACK if self.used else 0)
        for name in ("values", "first", "second", "touched"):
            old = getattr(self, name)
            new = torch.zeros((capacity, *old.shape[1:]), dtype=old.dtype)
            new[: self.used] = old[: self.used]
            setattr(self, name, new)

    def tensors(self) -> dict[str, Tensor]:
        """All that `restore` needs."""
        tables = {name: getattr(self, name)[: self.used].clone() for name in ("values", "first", "second", "touched")}
        return {**tables, "free": self.free.clone()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand as when `tensors` were taken."""
        for name in ("values", "first", "second", "touched", "free"):
            setattr(self, name, tensors[name].clone())
        self.used = len(self.values)


@cache
def _tails() -> Tensor:
    """A(s) = sum over j >= 1 of r^j c(s + j), by A(s) = r (c(s + 1) + A(s + 1)), for s = 0, 1, …"""
    steps = torch.arange(1, _CORRECTED + 1, dtype=torch.float64)
    corrections = ((1 - BETA2**steps).sqrt() / (1 - BETA1**steps)).tolist()
    sums = [_RATIO / (1 - _RATIO)]
    for correction in reversed(corrections):
        sums.append(_RATIO * (correction + sums[-1]))
    return torch.tensor(sums[:0:-1], dtype=torch.float64)


def _tail(steps: Tensor) -> Tensor:
    return _tails()[steps.clamp(max=_CORRECTED - 1)]
