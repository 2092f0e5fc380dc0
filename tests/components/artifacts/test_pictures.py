from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts.pictures import SCHEMA, Pictures
from components.errors import ArtifactError

NUMBERS = [n for n in range(1, 101) if n % 3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    table = pa.table([NUMBERS, [f"picture {n}".encode() for n in NUMBERS]], schema=SCHEMA)
    pq.write_table(table, tmp_path / "pictures.parquet", row_group_size=7)
    return tmp_path / "pictures.parquet"


def test_every_item_gets_its_own_picture(file: Path) -> None:
    pictures = Pictures(file)
    assert len(pictures) == len(NUMBERS)
    for number in range(-1, 110):
        expected = f"picture {number}".encode() if number in NUMBERS else None
        assert pictures.get(number) == expected


def test_threads_may_ask_at_once_and_the_file_may_go(file: Path) -> None:
    pictures = Pictures(file)
    file.unlink()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(pictures.get, NUMBERS * 5))
    assert found == [f"picture {n}".encode() for n in NUMBERS] * 5


def test_a_damaged_file_is_named(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"pictures.parquet: not readable"):
        Pictures(file)
