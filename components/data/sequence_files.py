"""The end of preparation: numbers instead of codes, and the files of the prepared set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.data.partition import RANGE, IntArray, codes_of, flat, offsets_of
from components.data.tally import sparse
from components.data.timestamps import SECOND
from components.schema import (
    ITEMS,
    RATINGS,
    TIMESTAMPS,
    TRAIN_END,
    USER,
    USER_ID,
    VALID_END,
)

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
