"""What the export writes for the page: pictures, and the teachers' item vectors."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from components.artifacts.opinions import opinions_of, read_opinions
from components.artifacts.pictures import Pictures
from components.errors import DataError
from pipelines.export_pictures import SIDE, thumbnail, write_pictures
from pipelines.teacher_opinions import write_teacher_items
from tests.exhibits import picture


def prepared(folder: Path, images: pl.Series | None) -> Path:
    count = 4 if images is None else len(images)
    table = pl.DataFrame({"item": pl.Series(range(1, count + 1), dtype=pl.Int32)})
    folder.mkdir()
    (table if images is None else table.with_columns(images.alias("image"))).write_parquet(folder / "items.parquet")
    return folder


def test_pictures_become_thumbnails_and_the_rest_is_counted(tmp_path: Path) -> None:
    images = pl.Series([picture(1, "PNG"), None, b"no picture", picture(4, "JPEG")], dtype=pl.Binary)
    report = write_pictures(prepared(tmp_path / "prepare", images), tmp_path)
    size = (tmp_path / "pictures.parquet").stat().st_size
    assert report == {"pictures": 2, "bytes": size, "absent": {"missing": 1, "not a picture": 1}}
    pictures = Pictures(tmp_path / "pictures.parquet")
    assert [pictures.get(item) is not None for item in (1, 2, 3, 4)] == [True, False, False, True]
    shown = Image.open(io.BytesIO(pictures.get(4) or b""))
    assert (shown.format, shown.size) == ("WEBP", (80, 120))
    assert np.abs(np.asarray(shown.convert("RGB"))[60, 40].astype(int) - [148, 28, 196]).max() < 12


def test_large_pictures_shrink_and_small_ones_stay() -> None:
    target = io.BytesIO()
    Image.new("RGB", (900, 1800), "red").save(target, "PNG")
    assert Image.open(io.BytesIO(thumbnail(target.getvalue()))).size == (SIDE // 2, SIDE)
    assert Image.open(io.BytesIO(thumbnail(picture(1)))).size == (80, 120)


def test_the_room_goes_to_the_most_frequent_items(tmp_path: Path) -> None:
    images = pl.Series([picture(n) for n in range(1, 11)], dtype=pl.Binary)
    one = len(thumbnail(picture(1)))
    report = write_pictures(prepared(tmp_path / "prepare", images), tmp_path, max_bytes=int(one * 3.5))
    assert report["absent"] == {"no room left": 10 - report["pictures"]}
    assert 2 <= report["pictures"] <= 4
    pictures = Pictures(tmp_path / "pictures.parquet")
    assert [pictures.get(item) is not None for item in range(1, 11)] == [n < report["pictures"] for n in range(10)]


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (None, "the run reads no pictures"),
        (pl.Series([[0.1, 0.2]] * 3, dtype=pl.List(pl.Float32)), "the run reads no pictures"),
        (pl.Series([None, b"?"], dtype=pl.Binary), "1 missing, 1 not a picture"),
    ],
)
def test_no_picture_is_said_and_refused_where_they_are_required(
    tmp_path: Path, images: pl.Series | None, reason: str
) -> None:
    source = prepared(tmp_path / "prepare", images)
    assert write_pictures(source, tmp_path) == {"none": reason}
    assert not (tmp_path / "pictures.parquet").exists()
    with pytest.raises(DataError, match=f"export.pictures.*{reason}"):
        write_pictures(source, tmp_path, required=True)


def annotated(folder: Path, **vectors: np.ndarray) -> Path:
    for name, rows in vectors.items():
        (folder / "teachers" / name).mkdir(parents=True)
        np.save(folder / "teachers" / name / "items.npy", rows.astype(np.float16), allow_pickle=False)
    (folder / "teachers.json").write_text(json.dumps({"teachers": [{"name": name} for name in vectors]}))
    return folder


def test_every_teachers_items_are_kept(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(13, 6))
    rows[0] = 0
    rows[5] = rows[2]  # items 5 and 2 are alike to the first teacher
    source = annotated(tmp_path / "annotate", one=rows, two=rows[:, :3] * [1, 2, 3])
    report = write_teacher_items(source, tmp_path)
    size = (tmp_path / "teacher_items.safetensors").stat().st_size
    assert report == {"teachers": {"one": 6, "two": 3}, "items": 12, "bytes": size}
    (found,) = opinions_of(read_opinions(tmp_path / "teacher_items.safetensors")["one"], [2], [5])
    assert found is not None
    assert found.position == 1


def test_too_many_items_leave_the_most_frequent_ones(tmp_path: Path) -> None:
    source = annotated(tmp_path / "annotate", one=np.ones((101, 8)), two=np.ones((101, 2)))
    assert write_teacher_items(source, tmp_path, max_bytes=400)["items"] == 20  # 20 bytes an item
    assert read_opinions(tmp_path / "teacher_items.safetensors")["one"].shape == (20, 8)


def test_a_run_without_teachers_has_no_opinions(tmp_path: Path) -> None:
    assert write_teacher_items(None, tmp_path) == {"none": "the run has no teachers"}
    assert not list(tmp_path.iterdir())
