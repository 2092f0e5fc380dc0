from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.data.prepared import PreparedSet
from components.errors import ArtifactError, DataError
from components.schema import (
    COUNT,
    ITEM,
    ITEM_ID,
    ITEMS,
    ITEMS_FILE,
    MANIFEST_FILE,
    SEQUENCES_FOLDER,
    TIMESTAMPS,
    TRAIN_END,
    USER,
    USER_ID,
    VALID_END,
)
from components.teachers.external import ExternalConfig, ExternalTeacher, load_external, read_items, read_states

ITEM_IDS = ["b", "a", "木\n"]
USERS = {"u2": [1, 2, 3, 1, 2], "u1": [3, 2, 1]}  # training parts: 3 items (2 instances), 1 item (none)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedSet:
    folder = tmp_path / "prepared"
    (folder / SEQUENCES_FOLDER).mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema_version": 1}))
    pl.DataFrame({ITEM: [1, 2, 3], ITEM_ID: ITEM_IDS, COUNT: [3, 2, 1]}).write_parquet(folder / ITEMS_FILE)
    lengths = [len(items) for items in USERS.values()]
    pl.DataFrame(
        {
            USER: pl.Series([1, 2], dtype=pl.Int32),
            USER_ID: list(USERS),
            ITEMS: pl.Series(list(USERS.values()), dtype=pl.List(pl.Int32)),
            TIMESTAMPS: pl.Series([None, None], dtype=pl.List(pl.Int64)),
            TRAIN_END: pl.Series([n - 2 for n in lengths], dtype=pl.Int32),
            VALID_END: pl.Series([n - 1 for n in lengths], dtype=pl.Int32),
        }
    ).write_parquet(folder / SEQUENCES_FOLDER / "part-0.parquet")
    return PreparedSet(folder)


def keyed_items() -> pl.DataFrame:
    return pl.DataFrame({"item_id": ["a", "spare", "木\n", "b"], "vector": [[1.0, 2], [9, 9], [3, 4], [5, 6]]})


def keyed_states() -> pl.DataFrame:
    rows = [("u1", 0), ("u2", 1), ("u2", 0), ("u2", 2), ("u2", 3)]
    vectors = [[float(u[1]), float(p)] for u, p in rows]
    return pl.DataFrame({"user_id": [u for u, _ in rows], "position": [p for _, p in rows], "vector": vectors})


def test_keyed_files_are_put_into_our_order(prepared: PreparedSet, tmp_path: Path) -> None:
    keyed_items().write_parquet(tmp_path / "items.parquet")
    keyed_states().write_parquet(tmp_path / "states.parquet")
    teacher = load_external(ExternalConfig(items="items.parquet", states="states.parquet"), prepared, tmp_path)
    assert teacher.items.tolist() == [[0, 0], [5, 6], [1, 2], [3, 4]]
    assert teacher.states.tolist() == [[2, 0], [2, 1]]  # instances: u2 after 1 item, u2 after 2
    assert teacher.valid_states is not None
    assert teacher.valid_states.tolist() == [[2, 2], [1, 0]]  # u2 after 3 items, u1 after 1
    assert teacher.items.dtype == teacher.states.dtype == np.float32


def test_plain_arrays_are_taken_in_instance_order(prepared: PreparedSet, tmp_path: Path) -> None:
    items = np.arange(8, dtype=np.float16).reshape(4, 2) + 1
    np.save(tmp_path / "items.npy", items)
    np.savez(tmp_path / "states.npz", vector=np.ones((2, 2)))
    teacher = load_external(ExternalConfig(items="items.npy", states="states.npz"), prepared, tmp_path)
    assert teacher.items[0].tolist() == [0, 0]  # row 0 is padding, whatever it held
    np.testing.assert_array_equal(teacher.items[1:], items[1:])
    assert teacher.valid_states is None


def test_npz_with_keys_equals_parquet_with_keys(prepared: PreparedSet, tmp_path: Path) -> None:
    frame = keyed_states()
    np.savez(
        tmp_path / "states.npz",
        vector=np.array(frame["vector"].to_list()),
        user_id=frame["user_id"].to_numpy().astype(str),
        position=frame["position"].to_numpy(),
    )
    states, valid = read_states(tmp_path / "states.npz", prepared)
    assert states.tolist() == [[2, 0], [2, 1]]
    assert valid is not None


def test_without_validation_rows_there_are_no_validation_states(prepared: PreparedSet, tmp_path: Path) -> None:
    keyed_states().filter(pl.col("position") < 2).write_parquet(tmp_path / "s.parquet")
    states, valid = read_states(tmp_path / "s.parquet", prepared)
    assert len(states) == 2
    assert valid is None


def write(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such file"),
        (lambda p: write(p, np.ones((3, 2))), r"3 rows, expected 4: one per items \+ 1"),
        (lambda p: write(p, np.ones((4, 2), np.int64)), "type int64, expected float16"),
        (lambda p: write(p, np.ones(4)), r"shape \(4,\), expected a table"),
        (lambda p: write(p, np.ones((4, 0))), r"shape \(4, 0\)"),
        (lambda p: write(p, np.array([[1, 1], [np.nan, 1], [1, np.inf], [1, 1]])), "in 2 rows, the first is row 1"),
        (lambda p: write(p, np.full((4, 2), 1e6)), "holds 1e.06; vectors are stored in 16 bits"),
        (lambda p: write(p, np.array([[object()]] * 4)), "damaged, or no .npy file of plain numbers"),
        (lambda p: p.write_bytes(b"\x93NUMPY broken"), "damaged, or no .npy file"),
    ],
)
def test_unusable_arrays_are_named(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "items.npy"
    make(path)
    with pytest.raises(DataError, match=message) as caught:
        read_items(path, ITEM_IDS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.filter(pl.col("item_id") != "a"), "1 of 3 items of the prepared set have no row, .*item_id='a'"),
        (lambda t: pl.concat([t, t.head(1)]), "2 rows share a key.*item_id='a'"),
        (lambda t: t.rename({"vector": "values"}), "holds item_id, values; expected 'vector' and the keys item_id"),
        (
            lambda t: t.with_columns(pl.Series("vector", [[1.0], [1.0, 2], [1.0, 2], [1.0, 2]])),
            "a list of the same length",
        ),
        (lambda t: t.with_columns(pl.Series("vector", [None, [1.0], [1.0], [1.0]])), "a list of the same length"),
    ],
)
def test_unusable_tables_are_named(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    change(keyed_items()).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=message):
        read_items(tmp_path / "items.parquet", ITEM_IDS)


def test_half_of_the_keys_is_not_enough(prepared: PreparedSet, tmp_path: Path) -> None:
    keyed_states().drop("position").write_parquet(tmp_path / "s.parquet")
    with pytest.raises(DataError, match="the keys user_id, position"):
        read_states(tmp_path / "s.parquet", prepared)
    keyed_states().with_columns(position=pl.lit("third")).write_parquet(tmp_path / "s.parquet")
    with pytest.raises(DataError, match="position whole numbers"):
        read_states(tmp_path / "s.parquet", prepared)


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "items.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot read '.pkl'; expected one of .npy, .npz, .parquet"):
        read_items(tmp_path / "items.pkl", ITEM_IDS)


def test_both_widths_must_agree(prepared: PreparedSet, tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.ones((4, 2)))
    np.save(tmp_path / "s.npy", np.ones((2, 3)))
    with pytest.raises(DataError, match=r"width 2, .*s.npy of width 3"):
        load_external(ExternalConfig(items="i.npy", states="s.npy"), prepared, tmp_path)


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    teacher = ExternalTeacher(np.ones((3, 2), np.float32), np.zeros((4, 2), np.float32), None)
    teacher.save(tmp_path)
    loaded = ExternalTeacher.load(tmp_path)
    np.testing.assert_array_equal(loaded.items, teacher.items)
    assert loaded.valid_states is None
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError, match=r"model\.safetensors: missing or damaged"):
        ExternalTeacher.load(tmp_path)


def test_user_and_position_do_not_name_chunks(prepared: PreparedSet, tmp_path: Path) -> None:
    keyed_states().write_parquet(tmp_path / "s.parquet")
    prepared.user_ids[1] = prepared.user_ids[0]
    with pytest.raises(DataError, match=r"prepare\.chunk_length cuts histories; give states in instance order"):
        read_states(tmp_path / "s.parquet", prepared)
