"""A partition of the log as an Arrow table: how it is read and rewritten.

A partition holds one row per user: ``range``, ``user_id``, ``items`` (a dictionary of ids, codes once encoded) and,
where the log has them, ``timestamps`` (microseconds) and ``ratings``; users are ordered by (hash of the id, id), so
ranges of the hash follow one another. Ids are looked at once each: what is done to every row is done to integers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.data.tally import scalars
from components.schema import (
    ITEM_ID,
    ITEMS,
    RATINGS,
    TIMESTAMPS,
)

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
RANGE: Final = "range"  # int32: which part of the hash's range the user falls in
DUPLICATES: Final = "duplicates"  # int32, rows of the user that were dropped as duplicates
LOW_RATED: Final = "low_rated"  # int32, rows of the user that were dropped for their rating


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
