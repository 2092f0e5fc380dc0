"""Tiny planted data: items of one taste follow each other, and their texts reveal the taste."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from components.data.batching import TrainingBatches
from components.data.flat_sequences import Sequences
from components.model import Catalog, Ranker

TEXT_DIM = 16
SMALL: dict[str, Any] = {"dim": 16, "num_layers": 1, "inner_dim": 32, "num_experts": 3, "max_length": 10}
COLORS = ("red", "green", "blue", "black")  # the words of the tastes


def planted(num_items: int = 24, num_users: int = 40, tastes: int = 4, seed: int = 0) -> tuple[Sequences, Catalog]:
    """Users walk through the items of their taste in a ring; text vectors are the taste plus a little noise."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(tastes, TEXT_DIM))
    text = directions[np.arange(num_items) % tastes] + 0.5 * generator.normal(size=(num_items, TEXT_DIM))
    lengths = generator.integers(5, 9, size=num_users)
    rows = []
    for user, length in enumerate(lengths):
        ring = np.arange(user % tastes, num_items, tastes)
        rows.append(ring[(generator.integers(len(ring)) + np.arange(length)) % len(ring)] + 1)
    sequences = Sequences(
        users=np.arange(1, num_users + 1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.concatenate(rows).astype(np.int32),
        train_end=(lengths - 2).astype(np.int32),
        valid_end=(lengths - 1).astype(np.int32),
    )
    features = {"text": np.concatenate([np.zeros((1, TEXT_DIM)), text]).astype(np.float32)}
    titles = [f"{COLORS[item % tastes]} {item}" for item in range(num_items)]
    counts = np.ones(num_items + 1, np.int64)
    return sequences, Catalog(num_items, num_users, counts, sequences, features, {"title": titles})


def train(model: Ranker, catalog: Catalog, steps: int, seed: int = 0) -> list[float]:
    """The loss of each step, at least `steps` of them."""
    torch.manual_seed(seed)
    assert catalog.sequences is not None
    batches = TrainingBatches(catalog.sequences, model.max_length, 16, seed=seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3, fused=True)
    losses: list[float] = []
    model.train()
    while len(losses) < steps:
        for windows in batches.epoch(len(losses)):
            loss = model.loss(batches.batch(windows))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
    return losses
