"""Check C10: two teachers that know the truth, one whose item columns are permuted, and what a fusion makes of it."""

from __future__ import annotations

from pathlib import Path

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
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.seeds import seed_everything
from tests.worlds import sequences

USERS, ITEMS, LENGTH, DIM = 400, 150, 12, 8
SEEDS = (0, 1, 2)
SHARPNESS, NOISE = 6.0, 0.1
Floats = NDArray[np.float32]


def world(seed: int = 7) -> tuple[Sequences, Floats, Floats]:
    """Next items drawn by taste and last item: sequences, places of the items (N + 1, d), states (instances, d)."""
    generator = np.random.default_rng(seed)
    items = generator.normal(size=(ITEMS + 1, DIM)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    rows, states = [], []
    for _ in range(USERS):
        taste = generator.normal(size=DIM)
        taste /= np.linalg.norm(taste)
        row = [int(generator.integers(1, ITEMS + 1))]
        for _ in range(LENGTH - 1):
            state = 0.6 * taste + 0.6 * items[row[-1]]
            weights = np.exp(SHARPNESS * items[1:] @ state)
            states.append(state)
            row.append(1 + int(generator.choice(ITEMS, p=weights / weights.sum())))
        del states[-2:]  # the held-out items are no training instances
        rows.append(row)
    return sequences(rows), items, np.array(states, dtype=np.float32)


def teachers(items: Floats, states: Floats, seed: int) -> TeacherCache:
    """Two noisy views of the truth, and the second of them with its items permuted."""
    generator = np.random.default_rng(seed)
    views = [
        tuple(
            torch.from_numpy((array + NOISE * generator.normal(size=array.shape)).astype(np.float16))
            for array in (states, items)
        )
        for _ in range(2)
    ]
    permuted = torch.cat([torch.tensor([0]), 1 + torch.from_numpy(generator.permutation(ITEMS))])
    known = [view[0] for view in views], [view[1] for view in views]
    return TeacherCache([*known[0], known[0][1]], [*known[1], known[1][1][permuted]], [1 / SHARPNESS] * 3)


def ndcg(folder: Path, seed: int, **fusion: object) -> tuple[float, dict[str, object]]:
    data, items, states = world()
    assert data.num_instances == len(states)
    seed_everything(seed)
    student = STUDENTS["sasrec"].make(
        Catalog(ITEMS, USERS, np.bincount(data.items, minlength=ITEMS + 1)),
        {"dim": 16, "inner_dim": 32, "max_length": LENGTH},
    )
    config = DistillationConfig.model_validate(
        {"weight": 5.0, "candidates": "all", "base_weights": "uniform", "max_instances": None, **fusion}
    )
    objective = Distiller(student, teachers(items, states, seed), ["a", "b", "permuted"], [1.0] * 3, config)
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
        dropped = report["dropped"]
        assert isinstance(dropped, dict)
        assert dropped["permuted"] > 0.9
        found["consistency"].append(value)
        found["average"].append(ndcg(tmp_path / f"a{seed}", seed, weights="average")[0])
    gains = np.array(found["consistency"]) - np.array(found["average"])
    assert gains.min() > 0, found
