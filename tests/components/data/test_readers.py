from pathlib import Path

import polars as pl
import pytest

from components.data import readers
from components.data.readers import (
    InputConfig,
    estimate_rows,
    open_log,
    read_rows,
    rejected_counts,
    rejected_example,
)
from components.errors import DataError

HEADER = "user_id,item_id,timestamp\n"


def write(folder: Path, text: str, name: str = "log.csv") -> InputConfig:
    (folder / name).write_text(text, encoding="utf8")
    return InputConfig(interactions=name)


def read(folder: Path, config: InputConfig) -> pl.DataFrame:
    log = open_log(str(folder), config)
    return pl.concat([rows for source in log.sources for rows in read_rows(source, log, folder / "rejected")])


def test_columns_are_mapped_and_ignored(tmp_path: Path) -> None:
    write(tmp_path, "who,what,when,rating\na,x,1,bad\n")
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when", "rating": ""}
    rows = read(tmp_path, InputConfig(interactions="log.csv", columns=columns))
    assert rows.columns == ["user_id", "item_id", "timestamp", "row"]


def test_a_wrong_column_lists_what_exists_and_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "user_id,item,timestamp\na,x,1\n")
    with pytest.raises(
        DataError,
        match=r"no column 'item_id' for input\.columns\.item_id; it has: user_id, item, timestamp; did you mean 'item'",
    ):
        open_log(str(tmp_path), InputConfig(interactions="log.csv"))
    with pytest.raises(
        DataError, match=r"no column 'tmestamp' for input\.columns\.timestamp; .*did you mean 'timestamp'"
    ):
        open_log(
            str(tmp_path), InputConfig(interactions="log.csv", columns={"item_id": "item", "timestamp": "tmestamp"})
        )


def test_an_unknown_key_of_the_mapping() -> None:
    with pytest.raises(ValueError, match=r"unknown column 'user'; known: user_id.*did you mean 'user_id'"):
        InputConfig(interactions="x", columns={"user": "u"})


def test_a_log_without_any_order(tmp_path: Path) -> None:
    config = write(tmp_path, "user_id,item_id\na,x\n")
    with pytest.raises(DataError, match="nothing tells the order in time: map 'timestamp' or 'position'"):
        open_log(str(tmp_path), config)


def test_positions_replace_timestamps(tmp_path: Path) -> None:
    config = write(tmp_path, "user_id,item_id,position\na,x,1\n")
    assert read(tmp_path, config)["position"].to_list() == [1]


def test_a_later_file_must_have_the_columns_of_the_first(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "a,x,1\n", "a.csv")
    write(tmp_path, "user_id,item_id\na,x\n", "b.csv")
    with pytest.raises(DataError, match=r"b\.csv: no column 'timestamp'"):
        read(tmp_path, InputConfig(interactions="*.csv"))


def test_rows_are_numbered_across_files(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "a,x,1\nb,x,1\n", "a.csv")
    write(tmp_path, HEADER + "c,x,1\n", "b.csv")
    assert read(tmp_path, InputConfig(interactions="*.csv"))["row"].to_list() == [0, 1, 1 << 40]


def test_unusable_rows_are_quarantined_with_reason_and_source(tmp_path: Path) -> None:
    config = write(tmp_path, HEADER + "a,x,1\n,x,1\nb,x,soon\nbroken\nc,x,2\n")
    assert read(tmp_path, config)["user_id"].to_list() == ["a", "c"]
    rejected = pl.read_parquet(tmp_path / "rejected" / "*.parquet")
    assert set(rejected["reason"]) == {
        "user_id is missing",
        "timestamp is not a time",
        "the line does not have the columns of the header",
    }
    assert all(source.endswith("log.csv") for source in rejected["source"])
    assert sum(rejected_counts(tmp_path).values()) == 3
    assert rejected_example(tmp_path) is not None


def test_no_rejected_rows_no_file(tmp_path: Path) -> None:
    read(tmp_path, write(tmp_path, HEADER + "a,x,1\n"))
    assert not (tmp_path / "rejected").exists()
    assert (rejected_counts(tmp_path), rejected_example(tmp_path)) == ({}, None)


def test_reading_a_source_again_leaves_one_file(tmp_path: Path) -> None:
    config = write(tmp_path, HEADER + ",x,1\n")
    for _ in range(2):
        read(tmp_path, config)
    assert rejected_counts(tmp_path) == {"user_id is missing": 1}


def test_parquet_is_split_by_row_groups_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PIECE_ROWS", 3)
    frame = pl.DataFrame({"user_id": range(10), "item_id": range(10), "timestamp": range(10)})
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=2)
    log = open_log(str(tmp_path), InputConfig(interactions="log.parquet"))
    pieces = log.split()
    assert estimate_rows(log) == 10
    assert [source.index for source in pieces.sources] == [0, 1, 2]
    users = [rows["user_id"].to_list() for source in pieces.sources for rows in read_rows(source, pieces, tmp_path)]
    assert [user for part in users for user in part] == [str(n) for n in range(10)]


def test_the_rows_of_a_text_file_are_estimated(tmp_path: Path) -> None:
    config = write(tmp_path, HEADER + "user,item,1600000000\n" * 50_000)
    assert estimate_rows(open_log(str(tmp_path), config)) == pytest.approx(50_000, rel=0.02)
