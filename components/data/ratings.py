"""Rating logs -> one stream in the order of time, in bounded memory: sorted runs, merged a range of times at a time.

The prepared stream is a folder ``ratings/`` of Parquet files to be read one after another: ``user`` and ``item``
(int32, numbered from 0 by first appearance, so that tables can grow as the stream goes on), ``timestamp`` (int64,
seconds), ``rating`` (float32), ``binary`` and ``five_class`` (int8; the latter null where the scale is none of stars).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.data.tally import scalars
from components.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID

RUN_ROWS: Final = 1 << 20  # rows that are sorted at once
GROUP_ROWS: Final = 1 << 16  # of a row group: what a reader holds
SAMPLED: Final = 1024  # every so many keys of a run help to cut it into ranges
RATINGS_FILE: Final = "ratings.json"  # scale, threshold and order, beside a stream and its models
ROW: Final = "row"
KEY: Final = "key"
BINARY: Final = "binary"
FIVE_CLASS: Final = "five_class"
STARS: Final = (0.5, 5.0)  # scales within it have five classes
CLASSES: Final = 5


class RatingsConfig(BaseModel):
    """What ``prepare.task: ratings`` makes of a log.

    Attributes:
        scale: smallest and largest rating; others are rejected. Five classes need a scale of stars, 0.5 to 5.
        threshold: ratings above it are positive.
        order: ``time``; or ``shuffled``, as the authors of ESAPN's code stream: only to compare with them.
        shuffle_seed: of that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: tuple[float, float] = STARS
    threshold: float = 3.5
    order: Literal["time", "shuffled"] = "time"
    shuffle_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.scale
        if not low < high:
            raise ValueError(f"scale: expected the smallest rating before the largest, got {[low, high]}")
        if not low <= self.threshold < high:
            raise ValueError(f"threshold: {self.threshold:g} leaves one label alone on the scale {low:g} to {high:g}")
        return self

    @property
    def has_classes(self) -> bool:
        """Whether ratings are stars, which five classes need."""
        return STARS[0] <= self.scale[0] and self.scale[1] == STARS[1]


def outside_scale(rows: pl.DataFrame, config: RatingsConfig) -> pl.Series:
    """Which rows are rated outside the scale."""
    return ~rows[RATING].is_between(*config.scale)


def write_run(rows: pl.DataFrame, key: str, file: Path) -> None:
    """Sort rows by `key`, then as they came, into a file of their own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    rows.sort(key, ROW).write_parquet(partial, row_group_size=GROUP_ROWS, compression="lz4")
    partial.replace(file)


def run_tally(rows: int) -> pa.Table:
    """What a reader of a piece of the log tells: how many rows it can use."""
    return scalars({"rows": rows})


def merged(runs: Sequence[Path], key: str, total: int) -> Iterator[pl.DataFrame]:
    """All rows of sorted runs in order, about `RUN_ROWS` at a time; rows of one key come together."""
    samples = [pl.read_parquet(run, columns=[key])[key].gather_every(SAMPLED) for run in runs]
    keys = pl.concat(samples).sort().to_numpy()
    inner = [keys[len(keys) * part // ranges] for ranges in [-(-total // RUN_ROWS)] for part in range(1, ranges)]
    edges: list[int | None] = [None, *sorted({int(one) for one in inner}), None]
    scanned = pl.scan_parquet(list(runs))
    for low, high in pairwise(edges):
        part = scanned
        if low is not None:
            part = part.filter(pl.col(key) >= low)
        if high is not None:
            part = part.filter(pl.col(key) < high)
        yield part.sort(key, ROW).collect()


class Numbering:
    """Numbers ids from 0 by first appearance, and counts them."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._numbers: dict[str, int] = {}
        self._counts = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, rows: pl.DataFrame) -> pl.Series:
        """(R,) int32 numbers of the rows' ids."""
        ids = rows[self.column].unique(maintain_order=True)
        for one in ids:  # distinct ids of a million rows, not the rows
            self._numbers.setdefault(one, len(self._numbers))
        known = pl.DataFrame(
            {self.column: ids, KEY: [self._numbers[one] for one in ids]}, schema_overrides={KEY: pl.Int32}
        )
        found = rows.select(self.column).join(known, on=self.column, how="left", maintain_order="left")[KEY]
        counts = np.bincount(found.to_numpy(), minlength=len(self._numbers))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        return found

    def table(self, number: str) -> pl.DataFrame:
        """``number``, the id, and how often it occurs, in the order of the numbers."""
        return pl.DataFrame(
            {number: np.arange(len(self), dtype=np.int32), self.column: list(self._numbers), "count": self._counts},
            schema_overrides={self.column: pl.String},
        )


def shuffle_keys(first: int, count: int, seed: int) -> NDArray[np.int64]:
    """(count,) keys of rows number `first` and on, by which sorting shuffles: splitmix64 of their numbers."""
    with np.errstate(over="ignore"):
        state = np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)
        state = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (state ^ (state >> np.uint64(31))).view(np.int64)


def labeled(rows: pl.DataFrame, config: RatingsConfig) -> pl.DataFrame:
    """Rows with both labels.

    >>> labeled(pl.DataFrame({"rating": [0.5, 3.5, 4.0]}), RatingsConfig()).rows()
    [(0.5, 0, 0), (3.5, 0, 3), (4.0, 1, 3)]
    """
    binary = (pl.col(RATING) > config.threshold).cast(pl.Int8).alias(BINARY)
    grade = (pl.col(RATING) - 0.5).floor().clip(0, CLASSES - 1).cast(pl.Int8)
    classes = grade if config.has_classes else pl.lit(None, pl.Int8)
    return rows.with_columns(binary, classes.alias(FIVE_CLASS))


RUN_COLUMNS: Final = (USER_ID, ITEM_ID, TIMESTAMP, RATING, ROW)
