"""Tiny sequences that tests share."""

from __future__ import annotations

import numpy as np

from components.data.flat_sequences import Sequences


def sequences(lists: list[list[int]]) -> Sequences:
    """Leave-one-out sequences of the given item numbers."""
    lengths = np.array([len(row) for row in lists], dtype=np.int64)
    enough = lengths >= 3
    return Sequences(
        users=np.arange(1, len(lists) + 1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=np.array([item for row in lists for item in row], dtype=np.int32),
        train_end=np.where(enough, lengths - 2, lengths).astype(np.int32),
        valid_end=np.where(enough, lengths - 1, lengths).astype(np.int32),
    )


def random_sequences(users: int, items: int, longest: int, seed: int = 0, cyclic: float = 0.0) -> Sequences:
    """Random sequences; with probability `cyclic` the next item is the successor of the last, which can be learnt."""
    generator = np.random.default_rng(seed)
    lists = []
    for _ in range(users):
        row = [int(generator.integers(1, items + 1))]
        for _ in range(int(generator.integers(4, longest + 1)) - 1):
            follows = generator.random() < cyclic
            row.append(row[-1] % items + 1 if follows else int(generator.integers(1, items + 1)))
        lists.append(row)
    return sequences(lists)
