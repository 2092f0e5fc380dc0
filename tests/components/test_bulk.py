from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.bulk import BulkRecommender, Histories
from components.errors import ArtifactError
from components.recommender import Recommender
from tests.tiny_artifact import item_id, write_artifact

NUM_ITEMS = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("bulk") / "artifact", num_items=NUM_ITEMS)


def lists(count: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(1, NUM_ITEMS + 1, rng.integers(0, 30)).tolist() for _ in range(count)]


def as_histories(rows: list[list[int]]) -> Histories:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    return Histories(items, offsets, np.zeros(len(rows), np.int64))


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_reproducible_answers_are_the_recommenders_bits(folder: Path, exclude_seen: bool) -> None:
    rows = lists(80)
    found = BulkRecommender(folder, reproducible=True).recommend(as_histories(rows), 15, exclude_seen)
    expected = Recommender(folder).recommend([[item_id(n) for n in row] for row in rows], 15, exclude_seen)
    assert found["items"].to_pylist() == [[item.item_id for item in one.items] for one in expected]
    assert found["scores"].to_pylist() == [[item.score for item in one.items] for one in expected]
    assert found["fallback"].to_pylist() == [one.fallback for one in expected]


def test_fast_scores_differ_by_rounding_alone(folder: Path) -> None:
    rows = lists(300)
    fast = BulkRecommender(folder).recommend(as_histories(rows), 50)
    exact = BulkRecommender(folder, reproducible=True).recommend(as_histories(rows), 50)
    np.testing.assert_allclose(fast["scores"].flatten(), exact["scores"].flatten(), rtol=1e-5, atol=1e-5)
    same = [a == b for a, b in zip(fast["items"].to_pylist(), exact["items"].to_pylist(), strict=True)]
    assert np.mean(same) > 0.98


def test_ids_become_numbers_and_unknown_ones_are_counted(folder: Path) -> None:
    recommender = BulkRecommender(folder)
    ids = pa.array([["id-3", "nope", "id-1"], [], None, ["nope"], ["id-2"], [None]], pa.list_(pa.string()))
    histories, unknown = recommender.numbered(ids)
    assert histories.items.tolist() == [3, 1, 2]
    assert histories.offsets.tolist() == [0, 2, 2, 2, 2, 3, 3]
    assert unknown == 3
    sliced, _ = recommender.numbered(ids[3:])
    assert (sliced.items.tolist(), sliced.offsets.tolist()) == ([2], [0, 0, 1, 1])


def test_no_users_give_no_rows(folder: Path) -> None:
    found = BulkRecommender(folder).recommend(as_histories([]), 5)
    assert {name: len(column) for name, column in found.items()} == {"items": 0, "scores": 0, "fallback": 0}


def test_a_corrupt_artifact_is_refused(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    (folder / "items.parquet").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"items.parquet: sha256"):
        BulkRecommender(folder)
