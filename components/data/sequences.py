"""One partition of the log -> sequences per user in time order.

Pure functions of an Arrow table: the fast path calls them on the whole log, Ray on every range of users, and the
content is the same.

A partition holds one row per user: ``range``, ``user_id``, ``items`` and, where the log has them, ``timestamps``
(microseconds) and ``ratings``; users are ordered by (hash of the id, id), so ranges of the hash follow one another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.cleaning import ROW, ROW_TYPES, Duplicates
from components.data.tally import scalars, sparse
from components.data.timestamps import SECOND
from components.schema import (
    ITEM_ID,
    ITEMS,
    POSITION,
    RATING,
    RATINGS,
    TIMESTAMP,
    TIMESTAMPS,
    TRAIN_END,
    USER,
    USER_ID,
    VALID_END,
)

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
RANGE: Final = "range"  # int32: which part of the hash's range the user falls in
DUPLICATES: Final = "duplicates"  # int32, rows of the user that were dropped as duplicates
LOW_RATED: Final = "low_rated"  # int32, rows of the user that were dropped for their rating
_HASH: Final = "hash"
_CODE: Final = "code"
_HASH_SEED: Final = 20240229
OUTPUT: Final = pa.schema(
    [
        (USER, pa.int32()),
        (USER_ID, pa.string()),
        (ITEMS, pa.list_(pa.int32())),
        (TIMESTAMPS, pa.list_(pa.int64())),
        (RATINGS, pa.list_(pa.float32())),
        (TRAIN_END, pa.int32()),
        (VALID_END, pa.int32()),
    ]
)


def user_range(num_ranges: int) -> pl.Expr:
    """The range that a user falls in: the hash of the id, cut into `num_ranges` equal parts."""
    high = pl.col(USER_ID).hash(_HASH_SEED) // 2**32  # 32 bits, so that the product fits into 64
    return (high * num_ranges // 2**32).cast(pl.Int32)


def gather(rows: pa.Table, num_ranges: int, duplicates: Duplicates, min_rating: float | None) -> pa.Table:
    """Rows of whole users in any order -> one row per user.

    Duplicates go by `duplicates`; of two identical rows the first in the input stays. A user whose rows all fall
    below `min_rating` keeps an empty sequence, so that its dropped rows are counted.
    """
    frame = cast(pl.DataFrame, pl.from_arrow(rows.select([name for name in ROW_TYPES if name in rows.column_names])))
    users = _users(frame, num_ranges)
    codes = frame[USER_ID].cast(pl.Enum(users[USER_ID])).to_physical().alias(_CODE)
    coded = frame.drop(USER_ID).with_columns(codes)
    rated = coded if min_rating is None else coded.filter(pl.col(RATING) >= min_rating)
    order, tied = _time_order(rated)
    kept = _deduplicate(rated[order], tied, duplicates)
    before, middle, after = (_per_user(part, users.height) for part in (coded, rated, kept))
    offsets = pa.array(np.concatenate([[0], np.cumsum(after)]), pa.int32())
    columns = {
        RANGE: users[RANGE].to_arrow(compat_level=pl.CompatLevel.oldest()),
        USER_ID: users[USER_ID].to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string()),
        LOW_RATED: pa.array(before - middle, pa.int32()),
        DUPLICATES: pa.array(middle - after, pa.int32()),
    }
    lists = {ITEMS: (ITEM_ID, pa.large_string()), TIMESTAMPS: (TIMESTAMP, pa.int64()), RATINGS: (RATING, pa.float32())}
    for name, (source, kind) in lists.items():
        if source in kept.columns:
            values = kept[source].rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(kind)
            columns[name] = pa.ListArray.from_arrays(offsets, values)
    return pa.table(columns)


def _users(frame: pl.DataFrame, num_ranges: int) -> pl.DataFrame:
    """The partition's users in their final order, numbered from 0."""
    unique = frame.lazy().select(pl.col(USER_ID).unique()).collect()
    hashed = unique.with_columns(pl.col(USER_ID).hash(_HASH_SEED).alias(_HASH), user_range(num_ranges).alias(RANGE))
    return hashed.sort(_HASH, USER_ID)


def _time_order(coded: pl.DataFrame) -> tuple[IntArray, Mask]:
    """The order by user, time, position and row of the input; and where neighbors in it differ in nothing but the row.

    One integer that packs user, time and position sorts in a third of the time that the columns take.
    """
    names = [name for name in (_CODE, TIMESTAMP, POSITION) if name in coded.columns]
    rows = coded[ROW].to_numpy()
    key = _pack([coded[name].to_numpy() for name in names])
    if key is None:
        columns = [coded[name].to_numpy() for name in names]
        order: IntArray = np.lexsort((rows, *reversed(columns)))
        return order, np.ones(len(order), np.bool_)
    order = pl.Series(key).arg_sort().to_numpy().astype(np.int64)
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    tied = tied[: len(order)]
    places = order[tied]
    order[tied] = places[np.lexsort((rows[places], ordered[tied]))]
    return order, tied


def _pack(columns: list[NDArray[Any]]) -> NDArray[np.uint64] | None:
    """Columns as one integer of the same order; None where 64 bits do not hold them."""
    key, bits = np.zeros(len(columns[0]), np.uint64), 0
    for column in columns:
        if not len(column):
            return key
        low, high = int(column.min()), int(column.max())
        values = (column - column.dtype.type(low)).view(f"u{column.dtype.itemsize}")
        if high - low >= SECOND and not (values % SECOND).any():  # whole seconds
            values = values // SECOND
        width = int(values.max()).bit_length()
        bits += width
        if bits > 64:
            return None
        key = (key << np.uint64(width)) | values
    return key


def _deduplicate(ordered: pl.DataFrame, tied: Mask, rule: Duplicates) -> pl.DataFrame:
    """Identical rows can only be found among the `tied` ones; those that remain keep their order."""
    if rule == "keep" or (rule == "exact" and not tied.any()):
        return ordered
    if rule != "exact":
        return ordered.unique([_CODE, ITEM_ID], keep=rule, maintain_order=True)
    subset = [name for name in ordered.columns if name != ROW]
    kept = ~tied
    kept[tied] = ordered.filter(tied).select(pl.struct(subset).is_first_distinct()).to_series().to_numpy()
    return ordered.filter(kept)


def _per_user(frame: pl.DataFrame, num_users: int) -> IntArray:
    return np.bincount(frame[_CODE].to_numpy(), minlength=num_users)


# Reading and rewriting a partition


def offsets_of(partition: pa.Table) -> IntArray:
    """(U + 1,) borders of the users in the flat columns."""
    lengths = pc.list_value_length(partition[ITEMS]).to_numpy()
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def flat(partition: pa.Table, column: str) -> pa.Array:
    """All users' values of a list column, one after another."""
    values = pc.list_flatten(partition[column])
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def codes_of(partition: pa.Table) -> NDArray[np.int32]:
    """The flat item codes of an encoded partition."""
    codes: NDArray[np.int32] = flat(partition, ITEMS).to_numpy(zero_copy_only=False)
    return codes


def item_ids(partition: pa.Table) -> pa.Table:
    """The partition's item ids, each once."""
    ids = pl.Series(ITEM_ID, flat(partition, ITEMS), dtype=pl.String).unique()
    return pa.table({ITEM_ID: ids.to_arrow(compat_level=pl.CompatLevel.oldest())})


def row_counts(partition: pa.Table) -> pa.Table:
    """A tally: users, rows that are left, rows dropped as duplicates and for their rating."""
    return scalars(
        {
            "users": partition.num_rows,
            "rows": int(offsets_of(partition)[-1]),
            DUPLICATES: pc.sum(partition[DUPLICATES]).as_py() or 0,
            LOW_RATED: pc.sum(partition[LOW_RATED]).as_py() or 0,
        }
    )


def encode(partition: pa.Table, ids: pa.Array) -> pa.Table:
    """Item ids -> codes: positions in the sorted array `ids`, which holds all of them."""
    names = pl.Enum(pl.Series(ids, dtype=pl.String))
    codes = pl.Series(flat(partition, ITEMS), dtype=pl.String).cast(names).to_physical().cast(pl.Int32)
    return _with_lists(partition, {ITEMS: codes.to_arrow()}, offsets_of(partition))


def trim(partition: pa.Table, rows: NDArray[np.bool_]) -> pa.Table:
    """Only the interactions that `rows` (flat) marks, and only users who keep one."""
    if rows.all() and (np.diff(offsets_of(partition)) > 0).all():
        return partition
    offsets = offsets_of(partition)
    ends = np.concatenate([[0], np.cumsum(rows)])
    lengths = ends[offsets[1:]] - ends[offsets[:-1]]
    mask = pa.array(rows)
    lists = {
        name: flat(partition, name).filter(mask)
        for name in (ITEMS, TIMESTAMPS, RATINGS)
        if name in partition.column_names
    }
    kept = _with_lists(partition, lists, np.concatenate([[0], np.cumsum(lengths)]))
    return kept.filter(pa.array(lengths > 0))


def _with_lists(partition: pa.Table, lists: dict[str, pa.Array], offsets: IntArray) -> pa.Table:
    borders = pa.array(offsets, pa.int32())
    for name, values in lists.items():
        place = partition.schema.get_field_index(name)
        partition = partition.set_column(place, name, pa.ListArray.from_arrays(borders, values))
    return partition


# The end: numbers instead of codes, and files


def write_parts(partition: pa.Table, numbers: NDArray[np.int32], first_user: IntArray, folder: Path) -> pa.Table:
    """Write one file ``part-RANGE.parquet`` per range that the partition holds.

    Args:
        partition: encoded, trimmed and split.
        numbers: (N,) item number of every code.
        first_user: (ranges,) number of the first user of every range.
        folder: the folder of the sequences.

    Returns:
        A tally: ``fingerprint``, a sum over interactions modulo 2^64 that does not depend on the partitions.
    """
    ranges = partition[RANGE].to_numpy()
    starts = np.searchsorted(ranges, ranges, side="left")
    users = (first_user[ranges] + np.arange(len(ranges)) - starts).astype(np.int32)
    items = numbers[codes_of(partition)]
    offsets = offsets_of(partition)
    times = _seconds(partition)
    table = pa.table(
        [
            pa.array(users),
            partition[USER_ID],
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items)),
            pa.nulls(len(users), OUTPUT.field(TIMESTAMPS).type)
            if times is None
            else pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(times)),
            partition[RATINGS] if RATINGS in partition.column_names else pa.nulls(len(users), pa.list_(pa.float32())),
            partition[TRAIN_END],
            partition[VALID_END],
        ],
        schema=OUTPUT,
    )
    for number in np.unique(ranges):
        chosen = np.searchsorted(ranges, [number, number + 1])
        _write(table.slice(chosen[0], chosen[1] - chosen[0]), folder / f"part-{number:05d}.parquet")
    return sparse("fingerprint", np.zeros(1), np.array([_fingerprint(users, offsets, items, times)]))


def _seconds(partition: pa.Table) -> IntArray | None:
    if TIMESTAMPS not in partition.column_names:
        return None
    micros: IntArray = flat(partition, TIMESTAMPS).to_numpy(zero_copy_only=False)
    return micros // SECOND


def _write(table: pa.Table, path: Path) -> None:
    """Beside and renamed: a task that is killed and repeated leaves one whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def _fingerprint(users: NDArray[np.int32], offsets: IntArray, items: NDArray[np.int32], times: IntArray | None) -> int:
    lengths = np.diff(offsets)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    user = np.repeat(users, lengths)
    word = _mix(user.astype(np.uint64) << np.uint64(32) | items.astype(np.uint64)) + place.astype(np.uint64)
    if times is not None:
        word = _mix(word) ^ times.view(np.uint64)
    return int(_mix(word).sum(dtype=np.uint64).view(np.int64))


def _mix(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: every bit of the input moves every bit of the output."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
