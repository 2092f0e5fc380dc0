"""A uniform sample of an endless stream in bounded memory (algorithm R, a batch at a time)."""

from __future__ import annotations

import torch
from torch import Tensor


class Reservoir:
    """Keeps `capacity` rows, each past row with the same probability.

    Args:
        capacity: rows that are kept.
        width: numbers of a row.
        generator: of the draws.
    """

    def __init__(self, capacity: int, width: int, generator: torch.Generator) -> None:
        self.rows = torch.zeros(0, width, dtype=torch.int64)
        self.seen, self.capacity, self.generator = 0, capacity, generator

    def add(self, rows: Tensor) -> None:
        """(n, width) new rows."""
        room = min(self.capacity - len(self.rows), len(rows))
        if room > 0:
            self.rows = torch.cat([self.rows, rows[:room]])
        numbers = torch.arange(self.seen + room, self.seen + len(rows))  # of the rows that find no room
        self.seen += len(rows)
        if len(numbers):
            places = (torch.rand(len(numbers), generator=self.generator, dtype=torch.float64) * (numbers + 1)).long()
            for_keeps = places < self.capacity
            self.rows[places[for_keeps]] = rows[room:][for_keeps]

    def draw(self, count: int) -> Tensor:
        """(count, width) rows, with replacement."""
        return self.rows[torch.randint(len(self.rows), (count,), generator=self.generator)]
