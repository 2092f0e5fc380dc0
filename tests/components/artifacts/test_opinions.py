from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.artifacts.opinions import LAST_ITEMS, Opinion, opinions_of, read_opinions, unit_rows, write_opinions
from components.errors import ArtifactError


def slow_opinion(rows: np.ndarray, history: list[int], item: int) -> Opinion:
    """The definition, item by item."""
    closeness = {}
    for other in range(1, len(rows) + 1):
        cosines = {seen: float(rows[other - 1] @ rows[seen - 1]) for seen in history}
        closeness[other] = max(cosines.values())
        if other == item:
            nearest = max(cosines, key=lambda seen: cosines[seen])
    better = [o for o in closeness if o not in history and closeness[o] > closeness[item]]
    return Opinion(1 + len(better), nearest, pytest.approx(closeness[item], abs=1e-6))


def test_opinions_follow_the_definition() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    history = [3, 17, 30]
    asked = [item for item in range(1, 41) if item not in history]
    found = opinions_of(rows, history, asked)
    assert found == [slow_opinion(rows, history, item) for item in asked]
    assert sorted(one.position for one in found if one) == list(range(1, 38))


def test_an_item_beside_one_of_the_history_is_first() -> None:
    vectors = np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32)
    vectors[9] = vectors[4] * 1.01  # item 10 is the twin of item 5
    (found,) = opinions_of(unit_rows(vectors), [2, 5], [10])
    assert found is not None
    assert (found.position, found.nearest) == (1, 5)
    assert found.similarity > 0.99


def test_centering_tells_texts_apart_that_all_look_alike() -> None:
    vectors = np.random.default_rng(2).normal(size=(50, 8)).astype(np.float32) + 30
    rows = unit_rows(vectors)
    raw = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert float(raw[0] @ raw[1]) > 0.95
    assert abs(float((rows @ rows.T)[np.triu_indices(50, 1)].mean())) < 0.1


@pytest.mark.parametrize(
    ("history", "item"), [([], 1), ([0], 1), ([99], 1), ([2], 2), ([4], 1), ([1], 4), ([1], 0), ([1], 99)]
)
def test_nothing_is_said_of_what_is_unknown_or_seen(history: list[int], item: int) -> None:
    rows = np.array([[1, 0], [0, 1], [-1, 0], [0, 0]], np.float32)  # nothing is known of item 4
    assert opinions_of(rows, history, [item]) == [None]


def test_only_the_last_items_of_a_long_history_count() -> None:
    rows = unit_rows(np.random.default_rng(3).normal(size=(LAST_ITEMS + 20, 4)).astype(np.float32))
    history = list(range(1, LAST_ITEMS + 11))
    asked = [LAST_ITEMS + 15]
    assert opinions_of(rows, history, asked) == opinions_of(rows, history[-LAST_ITEMS:], asked)
    assert opinions_of(rows, history, [1]) == [None], "an item of the history stays one"


def test_a_row_of_zeros_stays_zero() -> None:
    vectors = np.array([[1, 2], [0, 0], [3, 1]], np.float32)
    rows = unit_rows(vectors)
    assert not rows[1].any()
    np.testing.assert_allclose(np.linalg.norm(rows[[0, 2]], axis=1), 1, rtol=1e-6)


def test_vectors_are_written_and_read(tmp_path: Path) -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    write_opinions(tmp_path, {"a": rows, "b": rows[:, :2]})
    found = read_opinions(tmp_path / "teacher_items.safetensors")
    assert list(found) == ["a", "b"]
    np.testing.assert_allclose(found["a"], rows, atol=1e-3)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "teacher_items.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match=r"teacher_items.safetensors: not readable"):
        read_opinions(path)
