from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.partition import encode, item_ids, offsets_of, row_counts, trim
from components.data.sequence_files import write_parts
from components.data.sequences import _pack, _sort, gather
from components.data.splits import split
from components.data.tally import Tally

SECOND = 1_000_000


def rows(text: str, **columns: list[object]) -> pa.Table:
    """``"ax3 by1"``: user a takes x at second 3, user b takes y at second 1."""
    parts = text.split()
    frame = {
        "user_id": [part[0] for part in parts],
        "item_id": [part[1] for part in parts],
        "timestamp": [int(part[2:]) * SECOND for part in parts],
        "row": list(range(len(parts))),
        **columns,
    }
    types = {"rating": pl.Float32, "position": pl.Int64}
    return pl.DataFrame(frame, schema_overrides={k: v for k, v in types.items() if k in frame}).to_arrow()


def sequences(partition: pa.Table) -> dict[str, str]:
    return {row["user_id"]: "".join(row["items"]) for row in partition.to_pylist()}


def test_sequences_are_in_time_order_whatever_the_order_of_the_rows() -> None:
    assert sequences(gather(rows("ax3 by1 ay1 az2"), 1, "exact", None)) == {"a": "yzx", "b": "y"}


def test_ties_in_time_go_by_position_then_by_the_input() -> None:
    assert sequences(gather(rows("ax1 ay1 az1"), 1, "exact", None)) == {"a": "xyz"}
    assert sequences(gather(rows("ax1 ay1 az1", position=[3, 1, 1]), 1, "exact", None)) == {"a": "yzx"}
    shuffled = rows("ax1 ay1 az1").take(pa.array([2, 0, 1]))
    assert sequences(gather(shuffled, 1, "exact", None)) == {"a": "xyz"}


@pytest.mark.parametrize(
    ("rule", "expected", "dropped"), [("exact", "xyxy", 1), ("keep", "xxyxy", 0), ("first", "xy", 3), ("last", "xy", 3)]
)
def test_duplicates(rule: str, expected: str, dropped: int) -> None:
    partition = gather(rows("ax1 ax1 ay2 ax3 ay4"), 1, rule, None)  # type: ignore[arg-type]
    assert sequences(partition) == {"a": expected}
    assert Tally([row_counts(partition)]).scalar("duplicates") == dropped


def test_first_and_last_keep_different_rows() -> None:
    table = rows("ax1 ay2 ax3", rating=[1.0, 2.0, 3.0])
    assert gather(table, 1, "first", None)["ratings"].to_pylist() == [[1.0, 2.0]]
    assert gather(table, 1, "last", None)["ratings"].to_pylist() == [[2.0, 3.0]]


def test_rows_that_differ_in_the_rating_are_no_exact_duplicates() -> None:
    assert sequences(gather(rows("ax1 ax1", rating=[1.0, 2.0]), 1, "exact", None)) == {"a": "xx"}


def test_low_ratings_go_and_are_counted_even_where_nothing_is_left() -> None:
    partition = gather(rows("ax1 ay2 bx1", rating=[5.0, 2.0, 1.0]), 1, "exact", 3)
    assert sequences(partition) == {"a": "x", "b": ""}
    tally = Tally([row_counts(partition)])
    assert (tally.scalar("low_rated"), tally.scalar("rows"), tally.scalar("users")) == (2, 1, 2)


def test_no_rows_give_a_typed_empty_partition() -> None:
    full, empty = gather(rows("ax1"), 4, "exact", None), gather(rows("ax1").slice(0, 0), 4, "exact", None)
    assert empty.schema == full.schema
    assert encode(empty, pa.array(["x"])).num_rows == 0


def test_ranges_follow_the_order_of_users() -> None:
    text = " ".join(f"{chr(letter)}x1" for letter in range(0x100, 0x200))
    whole, cut = gather(rows(text), 1, "exact", None), gather(rows(text), 8, "exact", None)
    assert whole["user_id"].to_pylist() == cut["user_id"].to_pylist()
    ranges = cut["range"].to_numpy()
    assert (np.diff(ranges) >= 0).all()
    assert set(ranges) == set(range(8))


def test_packing_keeps_the_order_and_gives_up_where_64_bits_are_too_few() -> None:
    generator = np.random.default_rng(0)
    columns = [generator.integers(0, 9, 500), generator.integers(-5, 5, 500) * SECOND, generator.integers(-3, 3, 500)]
    key = _pack(columns)
    assert key is not None
    assert np.array_equal(np.argsort(key, kind="stable"), np.lexsort(columns[::-1]))
    wide = np.array([-(2**62), 2**62 + 1])
    assert _pack([wide, wide]) is None


@pytest.mark.parametrize("high", [2**20, 2**63])
def test_a_key_is_sorted_whether_or_not_the_place_fits_beside_it(high: int) -> None:
    key = np.random.default_rng(0).integers(0, high, 500, dtype=np.uint64)
    order, ordered = _sort(key)
    assert np.array_equal(key[order], np.sort(key))
    assert np.array_equal(ordered, np.sort(key))
    assert sorted(order.tolist()) == list(range(500))


def test_unpackable_columns_are_sorted_all_the_same() -> None:
    extremes = [2**61, -(2**61), 5, 2**61]
    partition = gather(rows("ax1 ay1 az1 ax1", position=extremes), 1, "exact", None)
    table = rows("ax1 ay1 az1 ax1", position=extremes)
    table = table.set_column(2, "timestamp", pa.array([2**61, 2**61, -(2**61), 2**61]))
    assert sequences(partition) == {"a": "yzx"}
    assert sequences(gather(table, 1, "exact", None)) == {"a": "zyx"}


def test_item_ids_are_coded_by_their_order() -> None:
    partition = gather(rows("az1 ax2 by1"), 1, "exact", None)
    assert sorted(item_ids(partition)["item_id"].to_pylist()) == ["x", "y", "z"]
    coded = encode(partition, pa.array(["x", "y", "z"]))
    assert {row["user_id"]: row["items"] for row in coded.to_pylist()} == {"a": [2, 0], "b": [1]}


def test_ids_in_codes_give_what_ids_as_text_give() -> None:
    text = pl.DataFrame(rows("az1 ax2 by1 ax2 cz9"))
    coded = text.with_columns(pl.col("user_id", "item_id").cast(pl.Categorical))
    assert gather(coded, 3, "exact", None).to_pylist() == gather(text.to_arrow(), 3, "exact", None).to_pylist()


def test_items_that_are_left_in_no_row_are_not_catalogued() -> None:
    partition = gather(rows("az1 ax2 by1", rating=[5.0, 1.0, 5.0]), 1, "exact", 3)
    assert sorted(item_ids(partition)["item_id"].to_pylist()) == ["y", "z"]
    coded = encode(partition, pa.array(["y", "z"]))
    assert {row["user_id"]: row["items"] for row in coded.to_pylist()} == {"a": [1], "b": [0]}


def test_trimming_drops_rows_and_users_without_any() -> None:
    partition = encode(
        gather(rows("ax1 ay2 az3 bx1", rating=[1.0, 2.0, 3.0, 4.0]), 1, "exact", None), pa.array(list("xyz"))
    )
    keep = np.array([item != 0 for row in partition.to_pylist() for item in row["items"]])
    kept = trim(partition, keep).to_pylist()
    assert [(row["user_id"], row["items"], row["ratings"]) for row in kept] == [("a", [1, 2], [2.0, 3.0])]
    assert kept[0]["timestamps"] == [2 * SECOND, 3 * SECOND]


def test_slices_of_a_partition_are_read_right() -> None:
    partition = gather(rows("ax1 ay2 bx1 by2 bz3 cx1"), 1, "exact", None)
    last = partition.slice(1)
    assert offsets_of(last)[-1] == sum(len(row["items"]) for row in last.to_pylist())


def test_parts_are_numbered_through_and_hold_seconds(tmp_path: Path) -> None:
    text = " ".join(f"{chr(letter)}x1 {chr(letter)}y2" for letter in range(0x100, 0x120))
    fingerprints = []
    for ranges in (1, 4):
        partition = split(encode(gather(rows(text), ranges, "exact", None), pa.array(["x", "y"])), None)
        users = np.bincount(partition["range"].to_numpy(), minlength=ranges)
        first = 1 + np.concatenate([[0], np.cumsum(users)[:-1]])
        tally = Tally([write_parts(partition, np.array([2, 1], np.int32), first, tmp_path / str(ranges))])
        fingerprints.append(tally.scalar("fingerprint"))
    whole = pq.read_table(tmp_path / "1")
    parts = pa.concat_tables(pq.read_table(file) for file in sorted((tmp_path / "4").iterdir()))
    assert len(list((tmp_path / "4").iterdir())) == 4
    assert whole.equals(parts)
    assert whole["user"].to_pylist() == list(range(1, 33))
    assert whole["items"][0].as_py() == [2, 1]
    assert whole["timestamps"][0].as_py() == [1, 2]
    assert whole["ratings"].null_count == 32
    assert fingerprints[0] == fingerprints[1]


def test_the_fingerprint_sees_the_order_of_items(tmp_path: Path) -> None:
    seen = set()
    for text in ("ax1 ay2", "ay1 ax2", "ax1 ay3", "ax1 ax2"):
        partition = split(encode(gather(rows(text), 1, "exact", None), pa.array(["x", "y"])), None)
        tally = Tally([write_parts(partition, np.array([1, 2], np.int32), np.array([1]), tmp_path)])
        seen.add(tally.scalar("fingerprint"))
    assert len(seen) == 4
