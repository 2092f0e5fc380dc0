"""What DARTS and AutoEmb share: an embedding of every size, each mapped to the full width, and a weighted sum."""

from __future__ import annotations

import torch
from torch import Tensor

from components.embedding_size.config import StreamModelConfig
from components.embedding_size.networks import SizeHeads
from components.embedding_size.sizes import ALL_WIDTH, NUM_SIZES
from components.embedding_size.stores import OneSize, by_size
from components.embedding_size.visits import Visits


class SoftEmbeddings:
    """Six embeddings of everybody; all but where the weights come from.

    Args:
        config: learning rates.
        generator: of new embeddings.
    """

    def __init__(self, config: StreamModelConfig, generator: torch.Generator) -> None:
        drift = config.row_updates == "dense"
        self.store = OneSize(config.learning_rate, generator, width=ALL_WIDTH, drift=drift)
        self.network = SizeHeads()

    def learned(self, visits: Visits, weights: Tensor, step: int) -> Tensor:
        """(B, 128) with (B, 6) weights; embeddings and maps are learned."""
        return self._sum(self.store.read(visits.unique, step, learn=True), visits, weights, track=True)

    def fixed(self, visits: Visits, weights: Tensor, step: int) -> Tensor:
        """The same of embeddings that stay as they are; the weights may be differentiated."""
        with torch.no_grad():
            values = self._normalized(self.store.read(visits.unique, step, learn=False), visits, track=False)
        return (values * weights.unsqueeze(2)).sum(1)

    def served(self, entities: Tensor, weights: Tensor, step: int) -> Tensor:
        """(n, 128) by running statistics."""
        wide = self.network(by_size(self.store.read(entities, step, learn=False)))  # (n, 6, 128)
        groups = torch.arange(NUM_SIZES).expand(len(wide), NUM_SIZES).flatten()
        values = torch.tanh(self.network.norm.running(wide.flatten(0, 1), groups)).view_as(wide)
        return (values * weights.unsqueeze(2)).sum(1)

    def _sum(self, rows: Tensor, visits: Visits, weights: Tensor, *, track: bool) -> Tensor:
        return (self._normalized(rows, visits, track=track) * weights.unsqueeze(2)).sum(1)

    def _normalized(self, rows: Tensor, visits: Visits, *, track: bool) -> Tensor:
        wide = self.network(by_size(rows))[visits.inverse]  # (B, 6, 128)
        return torch.tanh(self.network.norm.branches(wide, track=track))
