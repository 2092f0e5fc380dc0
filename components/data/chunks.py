"""Long histories cut into chunks that count as sequences of their own (as CpRec cuts its logs, Sun et al. 2020)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from components.data.partition import IntArray, flat, offsets_of
from components.schema import ITEMS, RATINGS, TIMESTAMPS

MIN_CHUNK = 2  # items: one to read, one to predict
LISTS = (ITEMS, TIMESTAMPS, RATINGS)


def chunk_ends(lengths: IntArray, chunk: int) -> tuple[IntArray, IntArray]:
    """Where chunks of `chunk` items end when each sequence is cut from its end backwards.

    Args:
        lengths: (U,) items per user.
        chunk: items per chunk; the oldest of a user may be shorter, and is left out below 2 items.

    Returns:
        (C,) the row of each chunk's user, and (C,) the place behind the chunk's last item, counted over all users.

    >>> [part.tolist() for part in chunk_ends(np.array([5, 1, 4]), 2)]
    [[0, 0, 2, 2], [3, 5, 8, 10]]
    """
    counts = -(-lengths // chunk)
    oldest = lengths - (counts - 1) * chunk
    counts -= oldest < MIN_CHUNK  # an empty sequence has no chunk, and none too many
    counts = np.maximum(counts, 0)
    rows = np.repeat(np.arange(len(lengths)), counts)
    first = np.cumsum(counts) - counts
    later = np.repeat(first + counts, counts) - np.arange(len(rows)) - 1  # chunks of the user behind this one
    return rows, np.cumsum(lengths)[rows] - later * chunk


def cut_chunks(partition: pa.Table, chunk: int) -> pa.Table:
    """One row per chunk instead of one per user, oldest first; the user's other columns stand beside each.

    Args:
        partition: one row per user, see `components.data.partition`.
        chunk: see `chunk_ends`.
    """
    offsets = offsets_of(partition)
    rows, ends = chunk_ends(np.diff(offsets), chunk)
    starts = np.maximum(ends - chunk, offsets[:-1][rows])
    lengths = ends - starts
    borders = np.concatenate([[0], np.cumsum(lengths)])
    places = pa.array(np.arange(borders[-1]) + np.repeat(starts - borders[:-1], lengths))
    columns = {}
    for name in partition.column_names:
        if name in LISTS:
            values = flat(partition, name).take(places)
            columns[name] = pa.ListArray.from_arrays(pa.array(borders, pa.int32()), values)
        else:
            columns[name] = partition[name].take(pa.array(rows))
    return pa.table(columns)
