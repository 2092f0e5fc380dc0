"""What baselines share that count: few items have a score of their own, the rest stand in the order of popularity."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from components.model import OutputHead

LOGITS_AT_ONCE = 2**22  # scores that the loss holds


class CountedHead(OutputHead):
    """Scores that were counted, in rows of which most columns are empty; an empty column has its item's prior.

    Args:
        prior: (N,) scores of items 1..N of which nothing else is known.
    """

    def __init__(self, prior: Tensor) -> None:
        super().__init__()
        self.register_buffer("prior", prior)
        self.prior: Tensor

    @abstractmethod
    def dense(self, states: Tensor, prior: Tensor, column: Tensor) -> Tensor:
        """(P, C) scores; `prior` (C,) fills them, `column` (N + 1,) says where an item's goes, negative for nowhere."""

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log softmax of the targets among all items; 0 for an empty batch, and never a gradient."""
        total = torch.zeros((), device=states.device)
        rows = max(1, LOGITS_AT_ONCE // len(self.prior))
        for begin in range(0, len(states), rows):
            part = slice(begin, begin + rows)
            logits = self.block(states[part], 1, len(self.prior) + 1)
            total += F.cross_entropy(logits, targets[part] - 1, reduction="sum")
        return total / max(len(states), 1)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, L), (C,) -> (P, C)."""
        distinct, place = torch.unique(candidates, return_inverse=True)
        column = torch.full((len(self.prior) + 1,), -1, device=candidates.device)
        column[distinct] = torch.arange(len(distinct), device=candidates.device)
        return self.dense(states, self.prior[distinct - 1], column)[:, place]

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, L) -> (P, stop - start)."""
        column = torch.arange(-start, len(self.prior) + 1 - start, device=states.device)
        column[stop:] = -1
        return self.dense(states, self.prior[start - 1 : stop - 1], column)


def entries(begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """All places of some ranges: (T,) which range each belongs to, and (T,) the place itself.

    >>> [part.tolist() for part in entries(torch.tensor([5, 0, 2]), torch.tensor([7, 0, 3]))]
    [[0, 0, 2], [5, 6, 2]]
    """
    lengths = end - begin
    owner = torch.repeat_interleave(lengths)
    first = begin - (torch.cumsum(lengths, 0) - lengths)
    return owner, torch.arange(len(owner), device=begin.device) + first[owner]
