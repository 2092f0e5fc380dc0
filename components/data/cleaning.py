"""Raw rows -> typed rows and quarantined rows: nothing is dropped silently, every rejected row keeps its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.data.ratings import RatingsConfig
from components.data.timestamps import parse_time, parse_times
from components.errors import DataError
from components.schema import ITEM_ID, POSITION, RATING, TIMESTAMP, USER_ID

ROW: Final = "row"  # int64, order of the input: breaks ties in time
REASON: Final = "reason"
SOURCE: Final = "source"
REJECTED_SCHEMA: Final = {SOURCE: pl.String, "row": pl.String, REASON: pl.String}
ROW_TYPES: Final = {
    USER_ID: pl.Categorical,
    ITEM_ID: pl.Categorical,
    TIMESTAMP: pl.Int64,
    POSITION: pl.Int64,
    RATING: pl.Float32,
    ROW: pl.Int64,
}

Duplicates = Literal["exact", "first", "last", "keep"]
Split = Literal["leave_one_out", "global_time", "sequences"]


class PrepareConfig(BaseModel):
    """How a log becomes a prepared set.

    Attributes:
        task: ``ranking``: sequences of items per user. ``ratings``: one stream in the order of time, for
            `distilrec stream`; of the keys below, `duplicates` (``exact`` or ``keep``), `max_rejected` and how the work
            is done count there, and every user and item is kept.
        ratings: the scale and the labels of ``task: ratings``.
        min_interactions_per_user: k-core: users with fewer are dropped, again and again until none has.
        min_interactions_per_item: the same for items.
        split: ``leave_one_out``: each user's last item tests, the one before validates. ``global_time``: two points in
            time cut all users. ``sequences``: whole ones are drawn by a hash: of some the last item tests and nothing
            trains, of others the last item validates and the rest trains.
        valid_from: where validation starts under ``global_time``: epoch seconds or an ISO date.
        test_from: where testing starts.
        valid_fraction: share of the interactions (of the sequences, under ``sequences``) that validates, where no times
            are given.
        test_fraction: share that tests.
        chunk_length: cut each user's history into chunks of so many items, from its end backwards; each counts as a
            sequence of its own. An oldest chunk of a single item is left out.
        max_rejected: share of unusable rows above which the stage fails.
        duplicates: ``exact`` drops rows that repeat another in all columns; ``first`` and ``last`` keep one row per
            user and item; ``keep`` drops none.
        min_rating: drop interactions rated below; needs ratings.
        drop_items_without_text: drop items of which no text is known, before the k-core.
        audit: ``block`` fails where training sees the future.
        partitions: ranges of users; None chooses by the size of the log. Never changes the content.
        fast_path_rows: logs of at most this many rows take one process.
        shuffle_strategy: of Ray Data: ``hash``, or ``v2`` for very large logs on a real cluster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["ranking", "ratings"] = "ranking"
    ratings: RatingsConfig = RatingsConfig()
    min_interactions_per_user: int = Field(default=5, ge=1)
    min_interactions_per_item: int = Field(default=5, ge=1)
    split: Split = "leave_one_out"
    valid_from: int | str | None = None
    test_from: int | str | None = None
    valid_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    chunk_length: int | None = Field(default=None, ge=2)
    max_rejected: float = Field(default=0.05, ge=0, le=1)
    duplicates: Duplicates = "exact"
    min_rating: float | None = None
    drop_items_without_text: bool = False
    audit: Literal["report", "block"] = "report"
    partitions: int | None = Field(default=None, ge=1, le=4096)
    fast_path_rows: int = Field(default=5_000_000, ge=0)
    shuffle_strategy: Literal["hash", "v2"] = "hash"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.task == "ratings" and self.duplicates not in ("exact", "keep"):
            raise ValueError(f"duplicates: {self.duplicates} is not for task: ratings; take exact or keep")
        given = [value for value in (self.valid_from, self.test_from) if value is not None]
        if given and self.split != "global_time":
            raise ValueError("valid_from and test_from belong to split: global_time")
        if len(given) == 1:
            raise ValueError("give both valid_from and test_from, or neither")
        times = [parse_time(value) for value in given]
        for value, time in zip(given, times, strict=True):
            if time is None:
                raise ValueError(f"{value!r} is no time; give epoch seconds or an ISO date such as 2023-01-31")
        if given and not times[0] < times[1]:  # type: ignore[operator]
            raise ValueError(f"valid_from ({self.valid_from}) must lie before test_from ({self.test_from})")
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction + test_fraction leave nothing to train on")
        return self


@dataclass(frozen=True)
class Cleaned:
    """What cleaning makes of a batch.

    Attributes:
        rows: usable rows, typed as `ROW_TYPES`, with the columns that the log has and `ROW`; the codes of their ids
            hold within the process.
        rejected: the others, as `REJECTED_SCHEMA`.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame


def clean(raw: pl.DataFrame, source: str, first_row: int = 0) -> Cleaned:
    """Type a batch of raw rows and separate the unusable ones.

    Args:
        raw: columns under our names, as text or in the types of a Parquet file.
        source: the file, for the rejected rows.
        first_row: the number of the first row; ties in time keep this order.
    """
    typed = raw.select(_typed(raw[name]) for name in raw.columns)
    reasons = _reasons(raw, typed)
    rows = typed.with_columns(pl.int_range(first_row, first_row + raw.height, dtype=pl.Int64).alias(ROW))
    if reasons is None:
        return Cleaned(rows, pl.DataFrame(schema=REJECTED_SCHEMA))
    bad = raw.with_columns(reasons).filter(pl.col(REASON).is_not_null())
    rejected = bad.select(
        pl.lit(source).alias(SOURCE), pl.struct(raw.columns).struct.json_encode().alias("row"), REASON
    )
    return Cleaned(rows.filter(reasons.is_null()), rejected)


def one_row_of_each(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A row of every code that occurs, in the order of the codes, so that ids are looked at once and not row by row.

    >>> one_row_of_each(np.array([4, 0, 4], np.uint32)).tolist()
    [1, 2]
    """
    rows = np.full(int(codes.max(initial=0)) + 1, len(codes), np.uint32)
    rows[codes] = np.arange(len(codes), dtype=np.uint32)
    return rows[rows < len(codes)]


def malformed_rows(lines: list[str], reason: str, source: str) -> pl.DataFrame:
    """Rejected rows for lines that could not even be cut into columns."""
    columns = {SOURCE: [source] * len(lines), "row": lines, REASON: [reason] * len(lines)}
    return pl.DataFrame(columns, schema=REJECTED_SCHEMA)


def check_rejected(read: int, reasons: dict[str, int], limit: float, example: dict[str, str] | None) -> None:
    """Refuse a log of which more than the share `limit` is unusable.

    Raises:
        DataError: with the counts per reason and an example.
    """
    rejected = sum(reasons.values())
    if not read:
        raise DataError("input.interactions: the log holds no rows")
    if not rejected or rejected <= limit * read:
        return
    counts = "; ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
    shown = f"; for example {example['row']} in {example[SOURCE]} ({example[REASON]})" if example else ""
    raise DataError(
        f"{rejected:,} of {read:,} rows are unusable ({rejected / read:.1%}, prepare.max_rejected is {limit:.1%}): "
        f"{counts}{shown}. Mend the log, map other columns in input.columns, or raise prepare.max_rejected"
    )


def _typed(raw: pl.Series) -> pl.Series:
    if raw.name in (USER_ID, ITEM_ID):
        return _ids(raw)
    if raw.name == TIMESTAMP:
        return parse_times(raw)
    number = _numbers(raw)
    if raw.name == RATING:
        return number.cast(pl.Float32)
    return number.cast(pl.Int64, strict=False) if number.dtype.is_integer() else _whole(number)


def _ids(raw: pl.Series) -> pl.Series:
    """Ids as texts in codes; a float that is whole (a column that once held gaps) is written as the integer it was."""
    ids = _whole(raw) if raw.dtype.is_float() else raw
    if not ids.dtype.is_integer():
        return ids.cast(pl.String).cast(pl.Categorical)
    coded = ids.to_arrow().dictionary_encode()  # only the distinct numbers become text
    names = pl.Series(coded.dictionary).cast(pl.String).to_arrow(compat_level=pl.CompatLevel.oldest())
    return pl.Series(raw.name, pa.DictionaryArray.from_arrays(coded.indices, names))


def _numbers(raw: pl.Series) -> pl.Series:
    if raw.dtype == pl.String:
        return raw.str.strip_chars().cast(pl.Float64, strict=False)
    return raw.cast(pl.Float64, strict=False) if not raw.dtype.is_numeric() else raw


def _whole(number: pl.Series) -> pl.Series:
    whole = number.cast(pl.Int64, strict=False)
    return whole.to_frame().select(pl.when(whole.cast(pl.Float64) == number.cast(pl.Float64)).then(whole)).to_series()


def _reasons(raw: pl.DataFrame, typed: pl.DataFrame) -> pl.Series | None:
    """The first reason of every row, null where it is usable; None where all are."""
    found = [(reason, mask) for name in raw.columns for reason, mask in _masks(raw[name], typed[name]) if mask.any()]
    if not found:
        return None
    frame = pl.DataFrame([mask.alias(str(index)) for index, (_, mask) in enumerate(found)])
    cases = [pl.when(pl.col(str(index))).then(pl.lit(reason)) for index, (reason, _) in enumerate(found)]
    return frame.select(pl.coalesce(cases).alias(REASON)).to_series()


def _masks(raw: pl.Series, typed: pl.Series) -> list[tuple[str, pl.Series]]:
    """What can be wrong with a column, and the rows where it is."""
    name = raw.name
    if name in (USER_ID, ITEM_ID):
        blank, garbled = _bad_texts(raw, typed)
        unknown = typed.is_null()
        return [(f"{name} is missing", blank), (f"{name} is not UTF-8", garbled), (f"{name} is not an id", unknown)]
    blank = (raw.is_null() | (raw.str.strip_chars() == "")) if raw.dtype == pl.String else raw.is_null()
    missing = [(f"{name} is missing", blank)]
    if name == TIMESTAMP:
        return [*missing, (f"{name} is not a time", typed.is_null())]
    if name == POSITION:
        return [*missing, (f"{name} is not a whole number", typed.is_null())]
    return [*missing, (f"{name} is not a number", ~typed.is_finite().fill_null(value=False))]


def _bad_texts(raw: pl.Series, ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Where an id is missing, and where it is no UTF-8."""
    if raw.dtype.is_integer():
        return raw.is_null(), pl.repeat(value=False, n=len(raw), eager=True)
    known = ids.drop_nulls()
    distinct = known.gather(one_row_of_each(known.to_physical().to_numpy()))
    texts = distinct.cast(pl.String)
    blank, garbled = texts.str.strip_chars() == "", texts.str.contains("\ufffd", literal=True)
    found = (ids.is_in(distinct.filter(bad).implode()).fill_null(value=False) for bad in (blank, garbled))
    return raw.is_null() | next(found), next(found)
