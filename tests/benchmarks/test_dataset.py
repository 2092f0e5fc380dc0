"""The neutral form of a data set, and what ours makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.peers.dataset import (
    HELD_OUT,
    NeutralSet,
    best_items,
    list_positions,
    read_neutral,
    write_lists,
    write_neutral,
)
from benchmarks.peers.distillation import random_teachers
from benchmarks.peers.distilrec import batches_of, sequences_of
from benchmarks.two_workers import write_prepared
from components.data.prepared import PreparedSet


@pytest.fixture
def neutral(tmp_path: Path) -> NeutralSet:
    """Two users that count and one that is too short; rows out of order."""
    frame = pl.DataFrame(
        {
            "user_id": ["b"] * 4 + ["a"] * 5 + ["c"] * 2,
            "item_id": ["p", "q", "r", "s", "q", "p", "q", "s", "r", "z", "z"],
            "position": [3, 2, 1, 0, 0, 1, 2, 3, 4, 0, 1],
        }
    )
    frame.write_parquet(tmp_path / "interactions.parquet")
    return read_neutral(write_neutral(tmp_path, tmp_path / "cache" / "set.npz"))


def test_items_are_numbered_by_training_frequency(neutral: NeutralSet) -> None:
    # Training parts: a = q p q, b = s r; q twice, then p, r, s by name.
    assert neutral.sequence(0).tolist() == [1, 2, 1, 4, 3]
    assert neutral.sequence(1).tolist() == [4, 3, 1, 2]
    assert (neutral.num_users, neutral.num_items) == (2, 4)


def test_columns_leave_out_what_is_held_out(neutral: NeutralSet) -> None:
    users, items, positions = neutral.columns(HELD_OUT)
    assert users.tolist() == [1, 1, 1, 2, 2]
    assert items.tolist() == [1, 2, 1, 4, 3]
    assert positions.tolist() == [0, 1, 2, 0, 1]
    assert neutral.targets().tolist() == [3, 2]
    assert neutral.training_counts().tolist() == [0, 2, 1, 1, 1]


def test_parts_have_their_targets_and_histories(neutral: NeutralSet) -> None:
    assert [neutral.targets(part).tolist() for part in ("valid", "test")] == [[4, 1], [3, 2]]
    assert [neutral.history(0, part).tolist() for part in ("valid", "test")] == [[1, 2, 1], [1, 2, 1, 4]]


def test_lists_hold_the_best_items_but_those_of_the_history(tmp_path: Path) -> None:
    scores = np.array([[9.0, 1.0, 4.0, 3.0, 2.0], [9.0, 1.0, 4.0, 3.0, 2.0]])
    lists = best_items(scores, [np.array([2]), np.array([], dtype=int)], 2)
    assert lists.tolist() == [[3, 4], [2, 3]]
    assert best_items(scores[:1], [np.array([2, 4])], 9).tolist() == [[3, 1, 0, 0]]
    write_lists(str(tmp_path / "lists.npy"), lists)
    assert list_positions(np.load(tmp_path / "lists.npy"), np.array([4, 1])).tolist() == [2, 3]


def test_positions_want_one_list_per_target() -> None:
    with pytest.raises(ValueError, match="one list for each of 2 users, got 1 lists"):
        list_positions(np.array([[1]]), np.array([1, 2]))


def test_missing_interactions_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        write_neutral(tmp_path / "nowhere", tmp_path / "set.npz")


def test_prepared_set_on_disk_equals_the_sequences_in_memory(neutral: NeutralSet, tmp_path: Path) -> None:
    prepared = PreparedSet(write_prepared(neutral, tmp_path / "prepared"))
    ours = sequences_of(neutral)
    for name in ("users", "offsets", "items", "train_end", "valid_end"):
        np.testing.assert_array_equal(getattr(prepared.sequences, name), getattr(ours, name))
    assert prepared.num_items == 4
    assert prepared.counts.tolist() == [0, 2, 1, 1, 1]
    assert ours.cases("test").targets.tolist() == neutral.targets().tolist()


def test_teachers_cover_every_training_instance(neutral: NeutralSet) -> None:
    sequences = sequences_of(neutral)
    cache = random_teachers(sequences, neutral.num_items, teachers=2, width=6, seed=0)
    batches = batches_of(sequences, {"length": 5, "batch": 4, "seed": 0})
    batch = batches.batch(batches.epoch(0)[0])
    scores = cache.scores(batch.instances, batch.targets.unique())
    assert scores.shape == (2, sequences.num_instances, len(batch.targets.unique()))
    assert scores.sum(dim=2).numpy() == pytest.approx(1.0, abs=1e-5)
