"""FIXED: everybody has an embedding of the full width, and the network reads it as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from components.embedding_size.config import StreamModelConfig
from components.embedding_size.side import below
from components.embedding_size.sizes import WIDTH
from components.embedding_size.stores import OneSize
from components.embedding_size.visits import Visits


class FixedSide:
    """One side of FIXED; see `components.embedding_size.side.Side`.

    Args:
        config: learning rates.
        generator: of new embeddings.
    """

    network = None
    sizes = None
    dim = WIDTH

    def __init__(self, config: StreamModelConfig, generator: torch.Generator) -> None:
        self.store = OneSize(config.learning_rate, generator, drift=config.row_updates == "dense")

    def ensure(self, count: int) -> None:
        """See `Side.ensure`."""
        self.store.ensure(count)

    def trial(self, visits: Visits, step: int) -> None:
        """Nothing is searched."""

    def leaves(self) -> list[Tensor]:
        """Nothing is searched."""
        return []

    def learn(self, visits: Visits, losses: Tensor, gradients: list[Tensor]) -> None:
        """Nothing is searched."""

    def adapt(self, visits: Visits, step: int) -> None:
        """Nothing is chosen."""

    def vectors(self, visits: Visits, step: int) -> Tensor:
        """See `Side.vectors`."""
        return self.store.read(visits.unique, step, learn=True)[visits.inverse]

    def update(self, step: int) -> None:
        """See `Side.update`."""
        self.store.update(step)

    def finish(self, visits: Visits, losses: Tensor) -> None:
        """Nothing is remembered."""

    def served(self, entities: Tensor, step: int) -> Tensor:
        """See `Side.served`."""
        return self.store.read(entities, step, learn=False)

    def tensors(self) -> dict[str, Tensor]:
        """See `Side.tensors`."""
        return {f"rows.{name}": one for name, one in self.store.rows.tensors().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Side.restore`."""
        self.store.rows.restore(below(tensors, "rows."))
