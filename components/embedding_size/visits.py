"""Who occurs in a batch, how often, and how often before: all by sorting, without a loop over rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from components.embedding_size.growing import reserve


@dataclass(frozen=True)
class Visits:
    """One side (users or items) of a batch of B interactions with U distinct entities.

    Attributes:
        rows: (B,) numbers of the entities.
        unique: (U,) each entity once, in rising order.
        inverse: (B,) place in `unique` of every row.
        counts: (U,) occurrences.
        rank: (B,) how many earlier rows of the batch have the same entity.
        last: (U,) row of each entity's last occurrence.
        frequency: (B,) occurrence number of the entity so far, this one included (1, 2, 3, …).
    """

    rows: Tensor
    unique: Tensor
    inverse: Tensor
    counts: Tensor
    rank: Tensor
    last: Tensor
    frequency: Tensor


def visits_of(rows: Tensor, frequency: Tensor) -> Visits:
    """Sort out a batch whose frequencies are known."""
    unique, inverse, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    order = torch.argsort(inverse, stable=True)
    ends = counts.cumsum(0)
    rank = torch.empty_like(rows)
    rank[order] = torch.arange(len(rows)) - (ends - counts)[inverse[order]]
    return Visits(rows, unique, inverse, counts, rank, order[ends - 1], frequency)


class Frequencies:
    """How often each entity occurred."""

    def __init__(self) -> None:
        self.counts = torch.zeros(0, dtype=torch.int64)

    def visit(self, rows: Tensor) -> Visits:
        """Sort out a batch and count it.

        >>> visits = Frequencies().visit(torch.tensor([7, 3, 7]))
        >>> visits.unique.tolist(), visits.frequency.tolist(), visits.last.tolist()
        ([3, 7], [1, 1, 2], [1, 2])
        """
        visits = visits_of(rows, torch.zeros_like(rows))
        self.counts = reserve(self.counts, int(rows.max()) + 1)
        frequency = self.counts[rows] + visits.rank + 1
        self.counts[visits.unique] += visits.counts
        return replace(visits, frequency=frequency)

    def restart(self) -> None:
        """Count anew."""
        self.counts.zero_()


class LossQueues:
    """The last T losses of every entity, first in, first out (ESAPN, Eq. 2).

    Args:
        length: T.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.losses = torch.zeros(0, length)
        self.pushed = torch.zeros(0, dtype=torch.int64)

    def push(self, visits: Visits, losses: Tensor) -> None:
        """Add the loss of every row of a batch, in the order of the rows."""
        count = int(visits.unique[-1]) + 1
        self.losses, self.pushed = reserve(self.losses, count), reserve(self.pushed, count)
        kept = visits.rank >= visits.counts[visits.inverse] - self.length  # an older one would be pushed out at once
        rows = visits.rows[kept]
        self.losses[rows, (self.pushed[rows] + visits.rank[kept]) % self.length] = losses[kept]
        self.pushed[visits.unique] += visits.counts

    def means(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) mean of the losses that are there, and (B,) whether there is any."""
        held = self.pushed[rows].clamp(max=self.length)
        return self.losses[rows].sum(1) / held.clamp(min=1), held > 0


def rewards(queues: LossQueues, rows: Tensor, losses: Tensor) -> Tensor:
    """(B,) Eq. 2: by how much a loss is below the mean of the entity's last ones; 0 where there is none yet."""
    means, known = queues.means(rows)
    return torch.where(known, means - losses, torch.zeros_like(losses))
