"""Small streams: popular and rare users and items, and labels that depend on both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.embedding_size.config import Method, StreamModelConfig
from components.embedding_size.learner import Predicted, StreamLearner


@dataclass(frozen=True)
class World:
    """(R,) users, items and labels."""

    users: Tensor
    items: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.users)


def make_world(rows: int = 400, users: int = 30, items: int = 40, classes: int = 2, seed: int = 0) -> World:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        return (torch.rand(rows, generator=generator) ** 2 * count).long()

    drawn = draw(users), draw(items)
    tastes = [torch.randn(count, 3, generator=generator) for count in (users, items)]
    scores = (tastes[0][drawn[0]] * tastes[1][drawn[1]]).sum(1)
    edges = torch.quantile(scores, torch.arange(1, classes) / classes)
    return World(*drawn, torch.bucketize(scores, edges))


def make_learner(method: Method = "esapn", seed: int = 3, **options: object) -> StreamLearner:
    return StreamLearner(method, StreamModelConfig.model_validate({"max_frequency": 64, **options}), seed)


def run(
    learner: StreamLearner, world: World, batch: int = 50, start: int = 0, stop: int | None = None
) -> list[Predicted]:
    """Predict and learn the batches number `start` to `stop`."""
    found = []
    for place in range(start * batch, len(world) if stop is None else stop * batch, batch):
        part = slice(place, place + batch)
        found.append(learner.step(world.users[part], world.items[part], world.labels[part]))
    return found


def losses(predicted: list[Predicted]) -> Tensor:
    return torch.cat([one.losses for one in predicted])
