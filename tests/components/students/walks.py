"""Histories with a planted order of transitions, and how well a student that learnt from them does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.data.batching import Batch, TrainingBatches, history_batch
from components.data.flat_sequences import Sequences
from components.inference import Scorer
from components.model import Catalog, Ranker
from components.students import STUDENTS
from components.training.seeds import seed_everything

NUM_ITEMS = 12
Paths = list[list[int]]


def walks(order: int, num_users: int = 300, length: int = 16, noise: float = 0.1) -> Paths:
    """The next item is a fixed function of the last `order` items, or (by `noise`) any item.

    With order 2 every item is equally likely after one item alone, so that a first-order model learns nothing.
    """
    generator = np.random.default_rng(0)
    if order == 1:
        ring = generator.permutation(NUM_ITEMS)  # one ring: with several, the items of a path would tell which
        follows = np.tile(np.roll(ring, -1)[ring.argsort()], (NUM_ITEMS, 1))
    else:
        follows = np.stack([generator.permutation(NUM_ITEMS) for _ in range(NUM_ITEMS)], axis=1)
    paths = []
    for _ in range(num_users):
        path = generator.integers(NUM_ITEMS, size=2).tolist()
        while len(path) < length:
            known = int(follows[path[-2], path[-1]])
            path.append(int(generator.integers(NUM_ITEMS)) if generator.random() < noise else known)
        paths.append([item + 1 for item in path])
    return paths


def shuffled(paths: Paths) -> Paths:
    """The same items in random order over all users: within one user, what is left to come could be told."""
    mixed: Paths = np.random.default_rng(1).permutation(np.array(paths).ravel()).reshape(len(paths), -1).tolist()
    return mixed


def catalog(paths: Paths) -> Catalog:
    """All but the last two items of a path are for training."""
    lengths = np.array([len(path) for path in paths])
    sequences = Sequences(
        users=np.arange(1, len(paths) + 1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=np.concatenate(paths).astype(np.int32),
        train_end=(lengths - 2).astype(np.int32),
        valid_end=(lengths - 1).astype(np.int32),
    )
    training = np.concatenate([sequences.training_items(row) for row in range(len(paths))])
    return Catalog(NUM_ITEMS, len(paths), np.bincount(training, minlength=NUM_ITEMS + 1), sequences)


def hits(kind: str, paths: Paths, epochs: int = 16, **arguments: Any) -> float:
    """Share of users whose test item a model of `kind`, trained on `paths`, ranks first."""
    data = catalog(paths)
    assert data.sequences is not None
    seed_everything(0)
    model = STUDENTS[kind].make(data, arguments)
    if model.parameter_parts()["total"]:
        fit(model, data.sequences, epochs)
    positions: NDArray[np.int64] = Scorer(model).positions(data.sequences.cases("test"))
    return float((positions == 1).mean())


def fit(model: Ranker, sequences: Sequences, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    batches = TrainingBatches(sequences, model.max_length, 32)
    for epoch in range(epochs):
        for windows in batches.epoch(epoch):
            optimizer.zero_grad()
            model.train().loss(batches.batch(windows)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def every_position(history: list[int], max_length: int, user: int = 0) -> Batch:
    """A row of which every position is predicted, as in training."""
    batch = history_batch([history], max_length, [user])
    every = torch.arange(len(history))
    return replace(batch, positions=every, instances=every)


def make(kind: str, num_items: int = 20, num_users: int = 5, **arguments: Any) -> Ranker:
    """An untrained model in evaluation mode; its counts are zeros."""
    torch.manual_seed(0)
    return STUDENTS[kind].make(Catalog(num_items, num_users, np.zeros(num_items + 1, np.int64)), arguments).eval()
