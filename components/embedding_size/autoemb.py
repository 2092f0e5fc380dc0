"""AutoEmb: a controller gives the weights of the six sizes, from the frequency and the last weights (section 3.3)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from components.embedding_size.config import StreamModelConfig
from components.embedding_size.growing import reserve
from components.embedding_size.networks import StateNetwork
from components.embedding_size.side import adam_tensors, below, make_adam, module_tensors, restore_adam
from components.embedding_size.sizes import ALL_WIDTH, NUM_SIZES
from components.embedding_size.soft import SoftEmbeddings
from components.embedding_size.visits import Visits

FIRST_WEIGHT: Final = {"binary": 1.0, "five-class": 1.5}  # of the smallest size, before anything was weighed; the code


class AutoEmbSide:
    """One side of AutoEmb; see `components.embedding_size.side.Side`.

    Args:
        config: learning rates and the largest frequency.
        generator: of new embeddings.
    """

    sizes = None
    dim = ALL_WIDTH

    def __init__(self, config: StreamModelConfig, generator: torch.Generator) -> None:
        self.embeddings = SoftEmbeddings(config, generator)
        self.network = self.embeddings.network
        self.controller = StateNetwork(config.max_frequency, NUM_SIZES)
        self.optimizer = make_adam(self.controller, config.policy_learning_rate)
        self.first = torch.zeros(NUM_SIZES)
        self.first[0] = FIRST_WEIGHT[config.task]
        self.last = torch.zeros(0, NUM_SIZES)  # weights that everybody had last
        self._weights = torch.zeros(0)

    def ensure(self, count: int) -> None:
        """See `Side.ensure`."""
        self.embeddings.store.ensure(count)
        self.last = reserve(self.last, count, self.first)

    def trial(self, visits: Visits, step: int) -> Tensor:
        """See `Side.trial`."""
        weights = self.controller(visits.frequency, self.last[visits.rows], track=True).softmax(1)
        return self.embeddings.fixed(visits, weights, step)

    def leaves(self) -> list[Tensor]:
        """See `Side.leaves`."""
        return list(self.controller.parameters())

    def learn(self, visits: Visits, losses: Tensor, gradients: list[Tensor]) -> None:
        """See `Side.learn`."""
        for parameter, gradient in zip(self.controller.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad()

    def adapt(self, visits: Visits, step: int) -> None:
        """See `Side.adapt`."""
        with torch.no_grad():
            self._weights = self.controller(visits.frequency, self.last[visits.rows], track=False).softmax(1)

    def vectors(self, visits: Visits, step: int) -> Tensor:
        """See `Side.vectors`."""
        return self.embeddings.learned(visits, self._weights, step)

    def update(self, step: int) -> None:
        """See `Side.update`."""
        self.embeddings.store.update(step)

    def finish(self, visits: Visits, losses: Tensor) -> None:
        """Remember the weights of everybody's last occurrence."""
        self.last[visits.unique] = self._weights[visits.last]

    def served(self, entities: Tensor, step: int) -> Tensor:
        """See `Side.served`; with the weights that everybody had last."""
        weights = self.last[entities]
        return self.embeddings.served(entities, weights / weights.sum(1, keepdim=True), step)

    def tensors(self) -> dict[str, Tensor]:
        """See `Side.tensors`."""
        found = {f"rows.{name}": one for name, one in self.embeddings.store.rows.tensors().items()}
        found |= module_tensors(self.controller, "controller.") | adam_tensors(self.optimizer, "adam.")
        return {**found, "last": self.last.clone()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Side.restore`."""
        self.embeddings.store.rows.restore(below(tensors, "rows."))
        self.controller.load_state_dict(below(tensors, "controller."))
        restore_adam(self.optimizer, below(tensors, "adam."))
        self.last = tensors["last"].clone()
