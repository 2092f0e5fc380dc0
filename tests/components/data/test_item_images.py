from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.data import item_images
from components.data.catalog import read_items
from components.data.item_images import image_files
from components.data.readers import InputConfig
from components.errors import DataError

IDS = pl.Series("item_id", ["1", "2", "3"])


def read(folder: Path, **changes: Any) -> tuple[list[Any], dict[str, int]]:
    """The images of items 1, 2 and 3, and the counts."""
    config = InputConfig.model_validate({"interactions": "x.csv", **changes})
    table = read_items(str(folder), config, IDS)
    return table.frame["image"].to_list(), table.counts


def write_items(folder: Path, images: list[Any], name: str = "items.parquet", **options: Any) -> None:
    frame = pl.DataFrame({"item_id": ["1", "2"], "title": ["One", "Two"], "picture": pl.Series(images, **options)})
    frame.write_csv(folder / name) if name.endswith(".csv") else frame.write_parquet(folder / name)


MAPPED = {"items": "items.parquet", "item_columns": {"image": "picture"}}


def test_bytes_in_the_item_table(tmp_path: Path) -> None:
    write_items(tmp_path, [b"one", None])
    images, counts = read(tmp_path, **MAPPED)
    assert images == [b"one", None, None]
    assert counts["items_without_image"] == 2


@pytest.mark.parametrize("name", ["items.parquet", "items.csv"])
def test_paths_in_the_item_table(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"one")
    write_items(tmp_path, ["pictures/a.jpg", "pictures/b.jpg"], name)
    images, counts = read(tmp_path, **{**MAPPED, "items": name})
    assert images == [b"one", None, None]
    assert counts["image_files_missing"] == 1
    (tmp_path / "pictures" / "b.jpg").write_bytes(b"x" * 99)
    monkeypatch.setattr(item_images, "MAX_FILE_BYTES", 50)
    images, counts = read(tmp_path, **{**MAPPED, "items": name})
    assert (images[1], counts["image_files_too_large"]) == (None, 1)


def test_addresses_are_not_downloaded(tmp_path: Path) -> None:
    write_items(tmp_path, ["https://a.org/1.jpg", None])
    with pytest.raises(DataError, match=r"items\.parquet: column 'picture' holds paths.*nothing is downloaded"):
        read(tmp_path, **MAPPED)


def test_a_column_that_nobody_mapped_is_left_alone(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["1"], "image": ["a.jpg"]}).write_csv(tmp_path / "items.csv")
    assert read(tmp_path, items="items.csv")[0] == ["a.jpg", None, None]


@pytest.mark.parametrize("images", [[1, 2], [[1, 2], [3, 4]], [True, False]])
def test_a_column_of_another_type_is_named(tmp_path: Path, images: list[Any]) -> None:
    write_items(tmp_path, images)
    with pytest.raises(DataError, match=r"items\.parquet: column 'picture' is of type .*lists of floats"):
        read(tmp_path, **MAPPED)
    pl.DataFrame({"item_id": ["1", "2"], "picture": images}).write_parquet(tmp_path / "images.parquet")
    with pytest.raises(DataError, match=r"images\.parquet: column 'picture' is of type"):
        read(tmp_path, images="images.parquet", item_columns={"image": "picture"})


def test_ready_vectors_in_a_table(tmp_path: Path) -> None:
    rows = {"item_id": ["2", "9", "2"], "image": [[0.5, 1.0], [1.0, 1.0], [7.0, 7.0]]}
    pl.DataFrame(rows).write_parquet(tmp_path / "v.parquet")
    images, counts = read(tmp_path, images="v.parquet")
    assert images == [None, [0.5, 1.0], None]
    assert counts["images_of_unknown_items"] == 1
    assert counts["repeated_images"] == 1


def test_ready_vectors_in_arrays(tmp_path: Path) -> None:
    vectors = np.array([[1, 2], [3, 4]], np.float16)
    np.savez(tmp_path / "v.npz", item_id=np.array([3, 1]), vector=vectors)
    np.save(tmp_path / "w.npy", vectors)
    (tmp_path / "w.ids.txt").write_text("3\n1\n")
    for name in ("v.npz", "w.npy"):
        assert read(tmp_path, images=name)[0] == [[3.0, 4.0], None, [1.0, 2.0]]
    assert [Path(source.path).name for source in image_files(str(tmp_path), "w.npy")] == ["w.ids.txt", "w.npy"]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["1", "2"], np.ones(2), r"shape \(2,\) of float64; expected floats of shape \(items, width\)"),
        (["1", "2"], np.ones((2, 0)), r"shape \(2, 0\)"),
        (["1", "2"], np.ones((2, 3), int), "of int64; expected floats"),
        (["1", "2", "3"], np.ones((2, 3)), "2 vectors for 3 item ids"),
        (["1", "2"], np.array([[1.0, 2.0], [np.nan, 1.0]]), "NaN or infinity in 1 rows, the first is row 1"),
        (["7", "8"], np.ones((2, 3)), r"holds no picture of the log's items \(such as '1', '2', '3'\)"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, ids: list[str], vectors: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "v.npz", item_id=np.array(ids), vector=vectors)
    with pytest.raises(DataError, match=rf"v\.npz: .*{message}"):
        read(tmp_path, images="v.npz")


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0], [1.0]], "vectors of 1, 2 numbers; all must have the same"),
        ([[1.0, float("nan")], [1.0, 2.0]], "NaN, infinity or gaps"),
        ([[1.0, None], [1.0, 2.0]], "NaN, infinity or gaps"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, vectors: list[Any], message: str) -> None:
    pl.DataFrame({"item_id": ["1", "2"], "image": vectors}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(DataError, match=rf"v\.parquet: column 'image' .*{message}"):
        read(tmp_path, images="v.parquet")


def test_arrays_that_are_missing_or_no_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((2, 2)))
    with pytest.raises(DataError, match=r"v\.npy: needs .*v\.ids\.txt beside it"):
        read(tmp_path, images="v.npy")
    with pytest.raises(DataError, match=r"input\.images: .*none\.npz does not exist"):
        read(tmp_path, images="none.npz")
    (tmp_path / "x.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"x\.npz: damaged"):
        read(tmp_path, images="x.npz")
    np.savez(tmp_path / "y.npz", vectors=np.ones((2, 2)))
    with pytest.raises(DataError, match=r"y\.npz: holds vectors; expected the arrays 'item_id' and 'vector'"):
        read(tmp_path, images="y.npz")
    np.savez(tmp_path / "z.npz", item_id=np.array(["1"]), vector=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"z\.npz"):
        read(tmp_path, images="z.npz")
