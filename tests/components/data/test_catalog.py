from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.data.catalog import number_items, numbered_items, read_items
from components.data.readers import InputConfig
from components.errors import DataError

IDS = pl.Series("item_id", ["1", "2", "3"])


def write_items(folder: Path, **columns: list[object]) -> None:
    pl.DataFrame({"item_id": [3, 1], "title": ["Three", "One &amp; only"], **columns}).write_parquet(
        folder / "items.parquet"
    )


def config(**changes: object) -> InputConfig:
    return InputConfig.model_validate({"interactions": "x.csv", "items": "items.parquet", **changes})


def test_items_come_in_the_order_asked_for_and_gaps_are_counted(tmp_path: Path) -> None:
    write_items(tmp_path)
    table = read_items(str(tmp_path), config(), IDS)
    assert table.frame["text"].to_list() == ["One & only.", "", "Three."]
    assert table.frame["title"].to_list() == ["One &amp; only", None, "Three"]
    assert table.counts["items_missing_from_item_file"] == 1
    assert table.counts["items_without_text"] == 1
    assert table.text_columns == ["title"]


def test_no_item_file_means_no_text(tmp_path: Path) -> None:
    assert read_items(str(tmp_path), config(items=None), IDS).frame["text"].to_list() == ["", "", ""]


def test_text_columns_are_taken_in_their_order_lists_included(tmp_path: Path) -> None:
    write_items(tmp_path, tags=[["b", "a"], []], year=[1999, 2000])
    table = read_items(str(tmp_path), config(text_columns=["tags", "year", "title"]), IDS)
    assert table.frame["text"].to_list() == ["2000. One & only.", "", "b a. 1999. Three."]


def test_a_wrong_text_column(tmp_path: Path) -> None:
    write_items(tmp_path)
    with pytest.raises(DataError, match=r"no column 'titel' for input\.text_columns.*did you mean 'title'"):
        read_items(str(tmp_path), config(text_columns=["titel"]), IDS)


def test_a_wrong_id_column(tmp_path: Path) -> None:
    write_items(tmp_path)
    with pytest.raises(DataError, match=r"no column 'asin' for input\.item_columns\.item_id"):
        read_items(str(tmp_path), config(item_columns={"item_id": "asin"}), IDS)


def test_an_item_file_of_another_catalogue(tmp_path: Path) -> None:
    write_items(tmp_path)
    with pytest.raises(DataError, match=r"holds none of the log's item ids \(such as '77'\)"):
        read_items(str(tmp_path), config(), pl.Series("item_id", ["77"]))


def test_repeated_items_keep_their_first_row(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["1", "1"], "title": ["first", "second"]}).write_csv(tmp_path / "items.csv")
    table = read_items(str(tmp_path), config(items="items.csv"), IDS)
    assert table.frame["title"].to_list() == ["first", None, None]
    assert table.counts["repeated_rows_in_item_file"] == 1


def test_columns_of_the_prepared_set_are_not_overwritten(tmp_path: Path) -> None:
    write_items(tmp_path, count=[1, 2], text=["ours", "theirs"])
    table = read_items(str(tmp_path), config(text_columns=["text"]), IDS)
    assert "count" not in table.frame.columns
    assert table.frame["text"].to_list() == ["theirs.", "", "ours."]


def test_pictures_from_a_file_and_from_a_folder(tmp_path: Path) -> None:
    write_items(tmp_path)
    pl.DataFrame({"item_id": [1, 9], "jpeg": [b"one", b"nine"]}).write_parquet(tmp_path / "images.parquet")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.jpg").write_bytes(b"one")
    for changes in ({"images": "images.parquet", "item_columns": {"image": "jpeg"}}, {"images": "pictures"}):
        table = read_items(str(tmp_path), config(**changes), IDS)
        assert table.frame["image"].to_list() == [b"one", None, None]
        assert table.counts["items_without_image"] == 2


def test_a_wrong_picture_column(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [1], "jpeg": [b"one"]}).write_parquet(tmp_path / "images.parquet")
    with pytest.raises(DataError, match=r"no column 'image' for input\.item_columns\.image; it has: item_id, jpeg"):
        read_items(str(tmp_path), config(items=None, images="images.parquet"), IDS)


def test_items_are_numbered_by_training_frequency_then_by_id() -> None:
    counts, alive = np.array([2, 7, 2, 9, 0]), np.array([True, True, True, False, True])
    numbers = number_items(counts, alive)
    assert numbers.tolist() == [2, 1, 3, 0, 4]
    frame = pl.DataFrame({"item_id": list("abcde"), "title": list("ABCDE"), "text": [""] * 5})
    written = numbered_items(frame, numbers, counts)
    assert written["item_id"].to_list() == ["b", "a", "c", "e"]
    assert written["count"].to_list() == [7, 2, 2, 0]
    assert written.columns == ["item", "item_id", "count", "text", "title"]
