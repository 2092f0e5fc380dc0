"""Two teachers that know the truth, one whose items are permuted: what a fusion makes of them (C10 and beyond)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.data.batching import TrainingBatches
from components.data.flat_sequences import Sequences
from components.distillation.config import DistillationConfig
from components.distillation.distiller import Distiller
from components.distillation.teacher_scores import TeacherCache
from components.evaluation.metrics import mean_metrics
from components.inference import Scorer
from components.model import Catalog
from components.students import STUDENTS
from components.students.heads import learnt_items
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.seeds import seed_everything
from tests.worlds import sequences

USERS, ITEMS, LENGTH, DIM = 400, 150, 12, 8
FEW = 100  # users of a world too small to learn the items from
SEEDS = (0, 1, 2)
SHARPNESS, NOISE = 6.0, 0.1
NAMES = ["a", "b", "permuted"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """Next items drawn by taste and last item.

    Attributes:
        data: the sequences.
        items: (N + 1, d) places of the items.
        states: (instances, d) true states of the training instances.
        valid: (users, d) those of the validation histories.
    """

    data: Sequences
    items: Floats
    states: Floats
    valid: Floats


def world(seed: int = 7, users: int = USERS) -> World:
    """A world of `users` users."""
    generator = np.random.default_rng(seed)
    items = generator.normal(size=(ITEMS + 1, DIM)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    rows, states, valid = [], [], []
    for _ in range(users):
        taste = generator.normal(size=DIM)
        taste /= np.linalg.norm(taste)
        row = [int(generator.integers(1, ITEMS + 1))]
        for _ in range(LENGTH - 1):
            state = 0.6 * taste + 0.6 * items[row[-1]]
            weights = np.exp(SHARPNESS * items[1:] @ state)
            states.append(state)
            row.append(1 + int(generator.choice(ITEMS, p=weights / weights.sum())))
        states.pop()  # the test item is nobody's
        valid.append(states.pop())
        rows.append(row)
    return World(sequences(rows), items, np.array(states, np.float32), np.array(valid, np.float32))


def teachers(truth: World, seed: int) -> TeacherCache:
    """Two noisy views of the truth, and the second of them with its items permuted."""
    generator = np.random.default_rng(seed)
    views = [
        tuple(
            torch.from_numpy((array + NOISE * generator.normal(size=array.shape)).astype(np.float16))
            for array in (truth.states, truth.items)
        )
        for _ in range(2)
    ]
    permuted = torch.cat([torch.tensor([0]), 1 + torch.from_numpy(generator.permutation(ITEMS))])
    known = [view[0] for view in views], [view[1] for view in views]
    return TeacherCache([*known[0], known[0][1]], [*known[1], known[1][1][permuted]], [1 / SHARPNESS] * 3)


def ndcg(
    folder: Path, seed: int, cache: TeacherCache | None = None, truth: World | None = None, **fusion: object
) -> tuple[float, dict[str, Any]]:
    truth = truth or world()
    data = truth.data
    assert data.num_instances == len(truth.states)
    cache = cache or teachers(truth, seed)
    seed_everything(seed)
    student = STUDENTS["sasrec"].make(
        Catalog(ITEMS, len(data), np.bincount(data.items, minlength=ITEMS + 1)),
        {"dim": 16, "inner_dim": 32, "max_length": LENGTH},
    )
    config = DistillationConfig.model_validate(
        {"weight": 5.0, "candidates": "all", "base_weights": "uniform", "max_instances": None, **fusion}
    )
    objective = Distiller(student, cache, NAMES[: len(cache)], [1.0] * len(cache), config, learnt_items(student))
    batches = TrainingBatches(data, LENGTH, 64, seed=seed)
    objective.calibrate([batches.batch(windows) for windows in batches.epoch(0)])
    Trainer(
        student, batches, TrainingConfig(epochs=25, patience=None), objective=objective, validate=None, folder=folder
    ).fit()
    positions = Scorer(student, batch_size=128).positions(data.cases("test"))
    return mean_metrics(positions)["ndcg@10"], objective.report()


@pytest.mark.slow
def test_c10_consistency_beats_average_pooling_with_a_permuted_teacher(tmp_path: Path) -> None:
    found: dict[str, list[float]] = {"consistency": [], "average": []}
    for seed in SEEDS:
        value, report = ndcg(tmp_path / f"c{seed}", seed, weights="consistency", epsilon=0.0)
        assert report["dropped"]["permuted"] > 0.9
        found["consistency"].append(value)
        found["average"].append(ndcg(tmp_path / f"a{seed}", seed, weights="average")[0])
    gains = np.array(found["consistency"]) - np.array(found["average"])
    assert gains.min() > 0, found


@pytest.mark.slow
def test_the_teachers_item_geometry_helps_and_a_shuffled_one_does_not(tmp_path: Path) -> None:
    """Geometry alone, without the distillation loss: one teacher, its items in their places or permuted."""
    found: dict[str, list[float]] = {"plain": [], "own": [], "permuted": []}
    truth = world(users=FEW)
    for seed in SEEDS:
        every = teachers(truth, seed)
        for name, k, weight in (("plain", 0, 0.0), ("own", 0, 1.0), ("permuted", 2, 1.0)):
            cache = TeacherCache([every.states[k]], [every.items[k]], [every.temperatures[k]])
            settings = {"weight": 0.0, "item_geometry": weight, "item_temperature": 0.2}
            found[name].append(ndcg(tmp_path / f"{name}{seed}", seed, cache, truth, **settings)[0])
    assert min(own - plain for own, plain in zip(found["own"], found["plain"], strict=True)) > 0, found
    assert min(own - other for own, other in zip(found["own"], found["permuted"], strict=True)) > 0, found
