"""One partition of the log -> sequences per user in time order.

Pure functions of an Arrow table: the fast path calls them on the whole log, Ray on every range of users, and the
content is the same.

A partition holds one row per user: ``range``, ``user_id``, ``items`` (a dictionary of ids, codes once encoded) and,
where the log has them, ``timestamps`` (microseconds) and ``ratings``; users are ordered by (hash of the id, id), so
ranges of the hash follow one another. Ids are looked at once each: what is done to every row is done to integers.
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

from components.data.cleaning import ROW, Duplicates, one_row_of_each
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
_PLACE: Final = "place"
_HASH_SEED: Final = 20240229
_CACHED: Final = 1 << 15  # rows that are mixed at once: their words stay in the cache
_ENCODING: Final[dict[str, Any]] = {  # items repeat, times ascend: small before they are compressed, and cheap
    "compression": "snappy",
    "use_dictionary": [f"{ITEMS}.list.element"],
    "column_encoding": {f"{TIMESTAMPS}.list.element": "DELTA_BINARY_PACKED"},
}
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
    high = pl.col(USER_ID).cast(pl.String).hash(_HASH_SEED) // 2**32  # 32 bits, so that the product fits into 64
    return (high * num_ranges // 2**32).cast(pl.Int32)


def gather(
    rows: pa.Table | pl.DataFrame, num_ranges: int, duplicates: Duplicates, min_rating: float | None
) -> pa.Table:
    """Rows of whole users in any order, their ids as text or as codes -> one row per user, items as a dictionary.

    Duplicates go by `duplicates`; of two identical rows the first in the input stays. A user whose rows all fall
    below `min_rating` keeps an empty sequence, so that its dropped rows are counted.
    """
    frame = rows if isinstance(rows, pl.DataFrame) else cast(pl.DataFrame, pl.from_arrow(rows))
    users, codes = _users(frame[USER_ID], num_ranges)
    names, items = _coded(frame[ITEM_ID])
    coded = frame.select(name for name in (TIMESTAMP, POSITION, RATING, ROW) if name in frame.columns).with_columns(
        pl.Series(_CODE, codes), pl.Series(ITEM_ID, items)
    )
    rated = coded if min_rating is None else coded.filter(pl.col(RATING) >= min_rating)
    order, tied = _time_order(rated)
    unique = _unique(rated, order, tied, duplicates)
    dropped = _per_user(rated[order[~unique]], users.height)
    before, after = _per_user(coded, users.height), _per_user(rated, users.height)
    offsets = pa.array(np.concatenate([[0], np.cumsum(after - dropped)]), pa.int32())
    lists = {ITEMS: ITEM_ID, TIMESTAMPS: TIMESTAMP, RATINGS: RATING}
    kept = rated.select(pl.col(name).alias(column) for column, name in lists.items() if name in rated.columns)
    values = {column.name: column.to_arrow() for column in kept[order[unique]].rechunk()}
    names_of = names.to_arrow(compat_level=pl.CompatLevel.oldest())
    values[ITEMS] = pa.DictionaryArray.from_arrays(values[ITEMS], names_of)
    columns = {
        RANGE: users[RANGE].to_arrow(compat_level=pl.CompatLevel.oldest()),
        USER_ID: users[USER_ID].to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string()),
        LOW_RATED: pa.array(before - after, pa.int32()),
        DUPLICATES: pa.array(dropped, pa.int32()),
    }
    return pa.table(columns | {name: pa.ListArray.from_arrays(offsets, flat) for name, flat in values.items()})


def _coded(ids: pl.Series) -> tuple[pl.Series, NDArray[np.int32]]:
    """The distinct ids as texts, and the place of every row's id among them."""
    codes = ids.cast(pl.Categorical).to_physical().to_numpy()
    rows = one_row_of_each(codes)
    places = np.zeros(int(codes.max(initial=0)) + 1, np.int32)
    places[codes[rows]] = np.arange(len(rows))
    return ids.gather(rows).cast(pl.String), places[codes]


def _users(ids: pl.Series, num_ranges: int) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """The partition's users in their final order, numbered from 0; and every row's number."""
    names, places = _coded(ids)
    hashed = names.to_frame().select(
        USER_ID, pl.col(USER_ID).hash(_HASH_SEED).alias(_HASH), user_range(num_ranges).alias(RANGE)
    )
    users = hashed.with_row_index(_PLACE).sort(_HASH, USER_ID)
    numbers = np.zeros(users.height, np.int32)
    numbers[users[_PLACE].to_numpy()] = np.arange(users.height)
    return users, numbers[places]


def _time_order(coded: pl.DataFrame) -> tuple[NDArray[np.integer[Any]], Mask]:
    """The order by user, time, position and row of the input; and where neighbors in it differ in nothing but the row.

    One integer that packs user, time and position sorts in a fraction of the time that the columns take.
    """
    names = [name for name in (_CODE, TIMESTAMP, POSITION) if name in coded.columns]
    rows = coded[ROW].to_numpy()
    key = _pack([coded[name].to_numpy() for name in names])
    if key is None:
        columns = [coded[name].to_numpy() for name in names]
        by_columns: IntArray = np.lexsort((rows, *reversed(columns)))
        return by_columns, np.ones(len(by_columns), np.bool_)
    order, ordered = _sort(key)
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
        span = high - low
        if span >= SECOND:
            seconds = values // SECOND
            if np.array_equal(seconds * SECOND, values):
                values, span = seconds, span // SECOND
        bits += span.bit_length()
        if bits > 64:
            return None
        key <<= np.uint64(span.bit_length())
        key |= values
    return key


def _sort(key: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """The order of `key`, and `key` in it.

    Where the place fits beside the key, values are sorted instead of places: a fifth of the time.
    """
    width = np.uint64(len(key).bit_length())
    if int(key.max(initial=0)).bit_length() + int(width) > 64:
        order: NDArray[np.uint32] = pl.Series(key).arg_sort().to_numpy(writable=True)
        return order, key[order]
    placed = key << width
    placed |= np.arange(len(key), dtype=np.uint64)
    placed.sort()
    return (placed & ((np.uint64(1) << width) - np.uint64(1))).astype(np.uint32), placed >> width


def _unique(rows: pl.DataFrame, order: NDArray[np.integer[Any]], tied: Mask, rule: Duplicates) -> Mask:
    """Which rows stay, in `order`; identical ones can only be found among those that are `tied`."""
    stays = np.ones(len(order), np.bool_)
    if rule == "keep":
        return stays
    asked = tied if rule == "exact" else stays.copy()
    same = pl.struct(pl.exclude(ROW) if rule == "exact" else (_CODE, ITEM_ID))
    distinct = same.is_last_distinct() if rule == "last" else same.is_first_distinct()
    stays[asked] = rows[order[asked]].select(distinct).to_series().to_numpy()
    return stays


def _per_user(frame: pl.DataFrame, num_users: int) -> IntArray:
    return np.bincount(frame[_CODE].to_numpy(), minlength=num_users)


# Reading and rewriting a partition


def offsets_of(partition: pa.Table) -> IntArray:
    """(U + 1,) borders of the users in the flat columns."""
    lengths = pc.list_value_length(partition[ITEMS]).to_numpy()
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def count_marked(rows: Mask, offsets: IntArray) -> IntArray:
    """(U,) how many rows of every user are marked.

    >>> count_marked(np.array([True, False, True]), np.array([0, 2, 2, 3])).tolist()
    [1, 0, 1]
    """
    before = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(rows, out=before[1:])
    counts: IntArray = before[offsets[1:]] - before[offsets[:-1]]
    return counts


def mark_first(counts: IntArray, lengths: IntArray) -> Mask:
    """(I,) the first `counts` rows of every user of `lengths` rows.

    >>> mark_first(np.array([1, 0]), np.array([3, 1])).tolist()
    [True, False, False, False]
    """
    marks: Mask = np.repeat(np.tile([True, False], len(counts)), np.stack([counts, lengths - counts], axis=1).ravel())
    return marks


def flat(partition: pa.Table, column: str) -> pa.Array:
    """All users' values of a list column, one after another."""
    values = pc.list_flatten(partition[column])
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()  # one chunk is not copied


def codes_of(partition: pa.Table) -> NDArray[np.int32]:
    """The flat item codes of an encoded partition."""
    codes: NDArray[np.int32] = flat(partition, ITEMS).to_numpy(zero_copy_only=False)
    return codes


def item_ids(partition: pa.Table) -> pa.Table:
    """The partition's item ids, each once."""
    items = flat(partition, ITEMS)
    used = np.flatnonzero(np.bincount(items.indices.to_numpy()))
    return pa.table({ITEM_ID: items.dictionary.take(pa.array(used))})


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
    items = flat(partition, ITEMS)
    codes = pc.index_in(items.dictionary, ids.cast(items.dictionary.type)).fill_null(-1)  # null: in no row
    return _with_lists(partition, {ITEMS: codes.take(items.indices)}, offsets_of(partition))


def trim(partition: pa.Table, rows: NDArray[np.bool_]) -> pa.Table:
    """Only the interactions that `rows` (flat) marks, and only users who keep one."""
    if rows.all() and (np.diff(offsets_of(partition)) > 0).all():
        return partition
    lengths = count_marked(rows, offsets_of(partition))
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
    pq.write_table(table, partial, **_ENCODING)
    partial.replace(path)


def _fingerprint(users: NDArray[np.int32], offsets: IntArray, items: NDArray[np.int32], times: IntArray | None) -> int:
    lengths = np.diff(offsets)
    place = (np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)).view(np.uint64)
    user = np.repeat(users.astype(np.uint64) << np.uint64(32), lengths)
    total = 0
    for start in range(0, len(items), _CACHED):
        part = slice(start, start + _CACHED)
        word = _mix(user[part] | items[part].astype(np.uint64)) + place[part]
        if times is not None:
            word = _mix(word) ^ times[part].view(np.uint64)
        total += int(_mix(word).sum(dtype=np.uint64))
    return int(np.uint64(total % 2**64).view(np.int64))


def _mix(word: NDArray[Any]) -> NDArray[np.uint64]:
    """SplitMix64: every bit of the input moves every bit of the output."""
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word ^= word >> np.uint64(30)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word ^= word >> np.uint64(27)
    word *= np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return word
