"""Tiny planted data: items of one taste follow each other, and their texts reveal the taste."""

from __future__ import annotations

import numpy as np

from components.data.flat_sequences import Sequences
from components.model import Catalog

TEXT_DIM = 16
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
