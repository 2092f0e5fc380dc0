from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.artifacts.format import read_manifest
from components.errors import ArtifactError
from components.recommender import HISTORIES_FILE
from components.schema import ITEM_ID, ITEMS, ITEMS_FILE, MANIFEST_FILE, SCHEMA_VERSION, USER, USER_ID
from serve.histories.base import BaseHistories, History, fingerprint_of
from tests.tiny_artifact import write_artifact


def write_prepared(folder: Path, rows: list[tuple[str, int, list[int]]], num_items: int = 9) -> Path:
    """What serving reads of a prepared set; every two rows are a file."""
    (folder / "sequences").mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION}))
    pl.DataFrame({ITEM_ID: [f"id-{number}" for number in range(1, num_items + 1)]}).write_parquet(folder / ITEMS_FILE)
    for start in range(0, len(rows), 2):
        part = pl.DataFrame(
            rows[start : start + 2], {USER_ID: pl.String, USER: pl.Int32, ITEMS: pl.List(pl.Int32)}, orient="row"
        )
        part.write_parquet(folder / "sequences" / f"part-{start:05d}.parquet")
    return folder


def test_users_are_found_in_every_file(tmp_path: Path) -> None:
    base = BaseHistories.of_prepared(
        write_prepared(tmp_path, [("zoe", 1, [3, 3, 9]), ("ann", 2, [1]), ("böb", 3, [2, 5])])
    )
    assert len(base) == 3
    assert base.find("zoe", 99) == History(["id-3", "id-3", "id-9"], 1)
    assert base.find("zoe", 2) == History(["id-3", "id-9"], 1)
    assert base.find("zoe", 0) == History([], 1)
    assert base.find("böb", 99) == History(["id-2", "id-5"], 3)
    for unknown in ("", "a", "anna", "zz", "🙂"):
        assert base.find(unknown, 99) is None


def test_chunks_of_one_user_are_joined(tmp_path: Path) -> None:
    rows = [("bob", 1, [7]), ("ann", 2, [1, 2]), ("ann", 3, [3, 4]), ("ann", 4, [5])]
    base = BaseHistories.of_prepared(write_prepared(tmp_path, rows))
    assert base.find("ann", 99) == History([f"id-{number}" for number in range(1, 6)], 4)
    assert base.find("ann", 2) == History(["id-4", "id-5"], 4)


@given(
    st.lists(st.tuples(st.text(max_size=4), st.lists(st.integers(1, 5), max_size=4)), max_size=12), st.text(max_size=4)
)
def test_finding_is_that_of_a_dictionary(rows: list[tuple[str, list[int]]], other: str) -> None:
    plain: dict[str, list[str]] = {}
    for user_id, items in rows:
        plain.setdefault(user_id, []).extend(f"id-{item}" for item in items)
    base = BaseHistories(
        pa.array([row[0] for row in rows], pa.large_string()),
        pa.array(range(len(rows)), pa.int32()),
        pa.array([row[1] for row in rows], pa.large_list(pa.int32())),
        pa.array([f"id-{number}" for number in range(1, 6)]),
        "",
    )
    for user_id in (*plain, other):
        found = base.find(user_id, 99)
        assert (None if found is None else found.items) == plain.get(user_id)


def test_the_artifact_carries_histories_or_not(tmp_path: Path) -> None:
    assert len(BaseHistories.of_artifact(write_artifact(tmp_path / "plain"))) == 0
    with_users = write_artifact(tmp_path / "users", histories=True)
    base = BaseHistories.of_artifact(with_users)
    assert base.find("ann", 9) == History(["id-3", "id-4", "id-5"], 1)
    assert base.fingerprint == fingerprint_of(read_manifest(with_users))


def test_user_numbers_belong_to_their_data() -> None:
    assert fingerprint_of({"data_fingerprint": "a", "digest": "b"}) == "a"
    assert fingerprint_of({"digest": "b"}) == "b"


def test_nobody_is_found_among_nobody() -> None:
    assert BaseHistories.empty().find("ann", 9) is None


@pytest.mark.parametrize("items", [[0], [10], [-1]])
def test_items_beyond_the_catalog_are_refused(tmp_path: Path, items: list[int]) -> None:
    folder = write_prepared(tmp_path, [("ann", 1, items)])
    with pytest.raises(ArtifactError, match="the catalog has 9"):
        BaseHistories.of_prepared(folder)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "prepare", [("ann", 1, [1])])
    (folder / "sequences" / "part-00000.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ArtifactError, match=r"part-00000.parquet: histories are not readable"):
        BaseHistories.of_prepared(folder)
    artifact = write_artifact(tmp_path / "artifact", histories=True)
    (artifact / HISTORIES_FILE).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=rf"{HISTORIES_FILE}: sha256"):
        BaseHistories.of_artifact(artifact)
