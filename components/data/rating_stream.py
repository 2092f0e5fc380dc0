"""The prepared stream of ratings, read a batch at a time from any place on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.ratings import BINARY, FIVE_CLASS
from components.errors import DataError
from components.schema import ITEM, ITEMS_FILE, RATINGS_FOLDER, USER, USERS_FILE

LABELS: Final = {"binary": BINARY, "five-class": FIVE_CLASS}


@dataclass(frozen=True)
class RatingBatch:
    """(B,) consecutive ratings: numbers of users and items from 0, and labels, all int64."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)


class RatingStream:
    """A folder that stage ``prepare`` wrote with ``task: ratings``; a row group is in memory at a time.

    Args:
        folder: the prepared set.
        task: which label: ``binary`` or ``five-class``.

    Raises:
        DataError: the folder holds no stream, or not this label.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self._label = folder, LABELS[task]
        files = sorted((folder / RATINGS_FOLDER).glob("part-*.parquet"))
        if not files:
            raise DataError(f"{folder}: holds no stream of ratings; prepare it with `prepare.task: ratings`")
        self._groups: list[tuple[Path, int, int]] = []  # file, row group, rows
        for file in files:
            metadata = pq.read_metadata(file)
            self._groups += [(file, n, metadata.row_group(n).num_rows) for n in range(metadata.num_row_groups)]
        if task == "five-class" and pq.read_table(files[0], columns=[FIVE_CLASS])[FIVE_CLASS].null_count:
            raise DataError(
                f"{folder}: its ratings are no stars from 0.5 to 5 (prepare.ratings.scale), so there are no five "
                "classes; use stream.task: binary"
            )

    def __len__(self) -> int:
        return sum(rows for _, _, rows in self._groups)

    @cached_property
    def num_users(self) -> int:
        """Users of the whole stream."""
        return int(pq.read_metadata(self.folder / USERS_FILE).num_rows)

    @cached_property
    def num_items(self) -> int:
        """Items of the whole stream."""
        return int(pq.read_metadata(self.folder / ITEMS_FILE).num_rows)

    def users(self) -> pl.DataFrame:
        """``user``, ``user_id``, ``count``, by number."""
        return pl.read_parquet(self.folder / USERS_FILE)

    def items(self) -> pl.DataFrame:
        """``item``, ``item_id``, ``count``, ``text`` and the item file's own columns, by number."""
        return pl.read_parquet(self.folder / ITEMS_FILE)

    def batches(self, size: int, start: int = 0, border: int | None = None) -> Iterator[RatingBatch]:
        """Consecutive batches of `size` ratings, the last one shorter, from rating number `start` on.

        Args:
            size: of a batch.
            start: a place where a batch begins.
            border: a place where a batch ends before its time and another begins, such as where a test part does.
        """
        place, waiting = start, _Columns(start, [])
        while place < len(self):
            stop = min(place + size, len(self))
            if border is not None and place < border:
                stop = min(stop, border)
            waiting = self._filled(waiting, place, stop)
            yield waiting.cut(place, stop)
            place = stop

    def _filled(self, held: _Columns, start: int, stop: int) -> _Columns:
        """Columns from `start` to at least `stop`: what is held, and the row groups that are missing."""
        tables, first, end = held.tables, held.first, held.first + sum(map(len, held.tables))
        while tables and first + len(tables[0]) <= start:
            first += len(tables.pop(0))
        before = 0
        for file, group, rows in self._groups:
            if before + rows > max(end, start) and before < stop:
                if not tables:
                    first = before
                tables.append(pq.ParquetFile(file).read_row_group(group, columns=[USER, ITEM, self._label]))
                end = before + rows
            before += rows
        return _Columns(first, tables)


class _Columns:
    """Row groups that follow one another; the first row is number `first` of the stream."""

    def __init__(self, first: int, tables: list[pa.Table]) -> None:
        self.first, self.tables = first, tables

    def cut(self, start: int, stop: int) -> RatingBatch:
        found = pa.concat_tables(self.tables).slice(start - self.first, stop - start)
        columns: list[Any] = [column.to_numpy().astype(np.int64) for column in found.columns]
        return RatingBatch(*columns)
