"""DARTS: weights of the six sizes per entity, learned by gradient on the batch before (section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from components.embedding_size.config import StreamModelConfig
from components.embedding_size.row_adam import Rows
from components.embedding_size.side import below
from components.embedding_size.sizes import ALL_WIDTH, NUM_SIZES
from components.embedding_size.soft import SoftEmbeddings
from components.embedding_size.visits import Visits


class DartsSide:
    """One side of DARTS; see `components.embedding_size.side.Side`.

    Args:
        config: learning rates.
        generator: of new embeddings.
    """

    sizes = None
    dim = ALL_WIDTH

    def __init__(self, config: StreamModelConfig, generator: torch.Generator) -> None:
        self.embeddings = SoftEmbeddings(config, generator)
        self.network = self.embeddings.network
        self.logits = Rows(NUM_SIZES, config.policy_learning_rate, drift=config.row_updates == "dense")
        self.searched = 0  # steps of the logits
        self._leaf = torch.zeros(0)

    def ensure(self, count: int) -> None:
        """See `Side.ensure`."""
        self.embeddings.store.ensure(count)
        new = count - self.logits.used
        if new > 0:
            self.logits.take(torch.full((new, NUM_SIZES), 1 / NUM_SIZES))

    def trial(self, visits: Visits, step: int) -> Tensor:
        """See `Side.trial`."""
        self._leaf = self.logits.read(visits.unique, self.searched).requires_grad_()
        return self.embeddings.fixed(visits, self._leaf.softmax(1)[visits.inverse], step)

    def leaves(self) -> list[Tensor]:
        """See `Side.leaves`."""
        return [self._leaf]

    def learn(self, visits: Visits, losses: Tensor, gradients: list[Tensor]) -> None:
        """See `Side.learn`."""
        self.searched += 1
        self.logits.update(visits.unique, gradients[0], self.searched)

    def adapt(self, visits: Visits, step: int) -> None:
        """The weights are learned in the trial."""

    def vectors(self, visits: Visits, step: int) -> Tensor:
        """See `Side.vectors`."""
        return self.embeddings.learned(visits, self._weights(visits.unique)[visits.inverse], step)

    def update(self, step: int) -> None:
        """See `Side.update`."""
        self.embeddings.store.update(step)

    def finish(self, visits: Visits, losses: Tensor) -> None:
        """Nothing is remembered."""

    def served(self, entities: Tensor, step: int) -> Tensor:
        """See `Side.served`."""
        return self.embeddings.served(entities, self._weights(entities), step)

    def _weights(self, entities: Tensor) -> Tensor:
        return self.logits.peek(entities, self.searched).softmax(1)

    def tensors(self) -> dict[str, Tensor]:
        """See `Side.tensors`."""
        found = {f"rows.{name}": one for name, one in self.embeddings.store.rows.tensors().items()}
        found |= {f"logits.{name}": one for name, one in self.logits.tensors().items()}
        return {**found, "searched": torch.tensor([self.searched])}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Side.restore`."""
        self.embeddings.store.rows.restore(below(tensors, "rows."))
        self.logits.restore(below(tensors, "logits."))
        self.searched = int(tensors["searched"])
