from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.batching import TrainingBatches, evaluation_batches, history_batch
from tests.worlds import random_sequences, sequences


def test_training_instances_of_a_user() -> None:
    """S14: n - 3 instances, targets s_2 .. s_(n-2); a user with fewer than 3 items is not evaluated."""
    data = sequences([[1, 2, 3, 4, 5, 6], [7, 8]])
    batch = TrainingBatches(data, max_length=10, batch_size=4).batch(np.array([[0, 0, 3]]))
    assert batch.targets.tolist() == [2, 3, 4]
    assert batch.items.tolist() == [[1, 2, 3]]
    assert data.cases("valid").targets.tolist() == [5]
    assert data.cases("test").targets.tolist() == [6]
    assert data.cases("test").history(0).tolist() == [1, 2, 3, 4, 5]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 3), st.integers(0, 5))
def test_every_instance_once_per_epoch(max_length: int, batch_size: int, epoch: int, seed: int) -> None:
    data = random_sequences(12, 9, 30, seed)
    batches = TrainingBatches(data, max_length, batch_size, windows="all", seed=seed)
    seen, targets = [], {}
    for windows in batches.epoch(epoch):
        batch = batches.batch(windows)
        seen += batch.instances.tolist()
        targets |= dict(zip(batch.instances.tolist(), batch.targets.tolist(), strict=True))
        assert batch.items.shape[1] <= max_length
        assert (batch.lengths.numpy() == (batch.items != 0).sum(1).numpy()).all()
    assert sorted(seen) == list(range(data.num_instances))
    plain = [int(item) for row in range(len(data)) for item in data.training_items(row)[1:]]
    assert [targets[i] for i in range(data.num_instances)] == plain


def test_last_window_holds_the_latest_items() -> None:
    data = sequences([[1, 2, 3, 4, 5, 6, 7, 8]])
    batches = TrainingBatches(data, max_length=2, batch_size=1, windows="last")
    (windows,) = batches.epoch(0)
    batch = batches.batch(windows)
    assert (batch.items.tolist(), batch.targets.tolist(), batch.instances.tolist()) == ([[4, 5]], [5, 6], [3, 4])


def test_plan_depends_on_seed_and_epoch_alone() -> None:
    data = random_sequences(50, 9, 12)

    def plan(seed: int, epoch: int) -> list[list[list[int]]]:
        return [windows.tolist() for windows in TrainingBatches(data, 5, 8, "all", seed).epoch(epoch)]

    assert plan(1, 2) == plan(1, 2)
    assert plan(1, 2) != plan(1, 3)
    assert plan(1, 2) != plan(2, 2)


def test_evaluation_batches_keep_the_end_of_long_histories() -> None:
    data = sequences([[1, 2, 3, 4, 5], [6, 7, 8]])
    found = {
        int(case): batch.items[row, : batch.lengths[row]].tolist()
        for cases, batch in evaluation_batches(data.cases("test"), max_length=3, batch_size=8)
        for row, case in enumerate(cases)
    }
    assert found == {0: [2, 3, 4], 1: [6, 7]}


def test_empty_history_is_one_padding() -> None:
    batch = history_batch([[], [3, 4]], 5)
    assert batch.items.tolist() == [[0, 0], [3, 4]]
    assert batch.positions.tolist() == [0, 3]
    assert batch.last_only


@pytest.mark.parametrize("windows", ["last", "all"])
def test_little_padding(windows: str) -> None:
    data = random_sequences(4000, 50, 60)
    batches = TrainingBatches(data, 50, 32, windows)  # type: ignore[arg-type]
    cells = sum(len(w) * int(w[:, 2].max()) for w in batches.epoch(0))
    assert data.num_instances / cells > 0.9
