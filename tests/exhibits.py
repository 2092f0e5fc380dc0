"""A small artifact with what the page shows: titles, pictures, and the item vectors of teachers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components.artifacts.format import DIGEST, FILES, read_manifest, seal
from components.artifacts.opinions import OPINIONS, unit_rows, write_opinions
from components.artifacts.pictures import GROUP_ROWS, PICTURES_FILE, SCHEMA
from components.schema import ITEMS_FILE, TITLE
from tests.tiny_artifact import write_artifact

TEACHERS = {"reader": 8, "painter": 5}
HOSTILE = '<img src=x onerror="window.hacked = 1"> & "quotes"'  # the title of item 2
PICTURELESS = 5  # every fifth item has no picture


def picture(number: int, kind: str = "WEBP") -> bytes:
    image = Image.new("RGB", (80, 120), (number * 37 % 256, number * 71 % 256, number * 113 % 256))
    target = io.BytesIO()
    image.save(target, kind)
    return target.getvalue()


def write_exhibits(folder: Path, num_items: int = 60, seed: int = 0, name: str = "tiny") -> Path:
    """An artifact like `write_artifact`'s; pictures and vectors do not depend on `seed`."""
    write_artifact(folder, num_items, seed)
    items = pl.read_parquet(folder / ITEMS_FILE)
    titles = [HOSTILE if number == 2 else f"Film {number}" for number in range(1, num_items + 1)]
    items.with_columns(pl.Series(TITLE, titles)).write_parquet(folder / ITEMS_FILE)
    shown = [number for number in range(1, num_items + 1) if number % PICTURELESS]
    table = pa.table([shown, [picture(number) for number in shown]], schema=SCHEMA)
    pq.write_table(table, folder / PICTURES_FILE, row_group_size=GROUP_ROWS, compression="none")
    generator = np.random.default_rng(7)
    vectors = {name: generator.normal(size=(num_items, dim)).astype(np.float32) for name, dim in TEACHERS.items()}
    write_opinions(folder, {name: unit_rows(rows) for name, rows in vectors.items()})
    kept = {key: value for key, value in read_manifest(folder).items() if key not in (DIGEST, FILES, "schema_version")}
    (folder / "manifest.json").unlink()
    seal(folder, {**kept, "model": {"name": name}, OPINIONS: {"teachers": TEACHERS, "items": num_items}})
    return folder
