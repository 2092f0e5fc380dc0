"""MostPop: everyone gets the most frequent items. The floor of every leaderboard."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from components.data.batching import Batch
from components.model import Catalog, OutputHead, Ranker


class MostPopConfig(BaseModel):
    """MostPop has no arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PopularityHead(OutputHead):
    """Score = log share of the training interactions; a state says nothing.

    Args:
        log_shares: (N,) log share of items 1..N.
    """

    def __init__(self, log_shares: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_shares", log_shares)
        self.log_shares: Tensor

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log share of the targets; 0 for an empty batch."""
        return -self.log_shares[targets - 1].sum() / max(len(targets), 1)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, C), the same row for every state."""
        return self.log_shares[candidates - 1].repeat(len(states), 1)

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, stop - start), the same row for every state."""
        return self.log_shares[start - 1 : stop - 1].repeat(len(states), 1)


class MostPop(Ranker):
    """Ranks by frequency in the training part.

    Args:
        head: the popularity of the items.
    """

    def __init__(self, head: PopularityHead) -> None:
        super().__init__()
        self.head: PopularityHead = head
        self.num_items, self.max_length = len(head.log_shares), 1

    def states(self, batch: Batch) -> Tensor:
        """(P, 1) zeros."""
        return torch.zeros(len(batch.positions), 1, device=batch.positions.device)


def smoothed_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) shares ``(count + 1) / (sum + N)`` of items 1..N.

    The one keeps items that the training part never saw rankable, and does not change the order.

    >>> smoothed_shares(np.array([0, 2, 0])).tolist()  # entry 0 is PAD
    [0.75, 0.25]
    """
    raised = counts[1:].astype(np.float64) + 1.0
    shares: NDArray[np.float64] = raised / raised.sum()
    return shares


def build(catalog: Catalog, config: MostPopConfig) -> MostPop:
    """Count nothing: the catalog knows its counts."""
    log_shares = np.log(smoothed_shares(catalog.counts)).astype(np.float32)
    return MostPop(PopularityHead(torch.from_numpy(log_shares)))
