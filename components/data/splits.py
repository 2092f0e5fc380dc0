"""Where each user's training ends and validation ends, and what that leaves to count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.data.partition import count_marked, flat, offsets_of
from components.data.tally import dense, scalars
from components.data.timestamps import SECOND
from components.schema import TIMESTAMPS, TRAIN_END, VALID_END

IntArray = NDArray[np.int64]
MIN_LENGTH = 3  # of a sequence that gives one item to validation, one to the test and keeps one
BUCKETS = 4096  # per step of the search for a cut


@dataclass(frozen=True)
class Cuts:
    """Two points in time, microseconds: interactions before `valid_from` train, before `test_from` validate."""

    valid_from: int
    test_from: int


def split(partition: pa.Table, cuts: Cuts | None) -> pa.Table:
    """Add ``train_end`` and ``valid_end``: by the points in time, or leave-one-out where there are none."""
    offsets = offsets_of(partition)
    if cuts is None:
        ends = leave_one_out(np.diff(offsets))
    else:
        times = flat(partition, TIMESTAMPS).to_numpy(zero_copy_only=False)
        ends = (_before(times, offsets, cuts.valid_from), _before(times, offsets, cuts.test_from))
    for name, end in zip((TRAIN_END, VALID_END), ends, strict=True):
        partition = partition.append_column(name, pa.array(end, pa.int32()))
    return partition


def leave_one_out(lengths: IntArray) -> tuple[IntArray, IntArray]:
    """The last item tests, the one before validates; shorter sequences than 3 only train.

    >>> [end.tolist() for end in leave_one_out(np.array([5, 2]))]
    [[3, 2], [4, 2]]
    """
    long = lengths >= MIN_LENGTH
    return lengths - 2 * long, lengths - long


def _before(times: IntArray, offsets: IntArray, cut: int) -> IntArray:
    return count_marked(times < cut, offsets)


# Cutting by shares: the quantile of a column that nobody holds whole


def time_bounds(partition: pa.Table) -> pa.Table:
    """A tally by second: ``earliest`` and ``latest`` of the partition as keys."""
    seconds = flat(partition, TIMESTAMPS).to_numpy(zero_copy_only=False) // SECOND
    if not len(seconds):
        return scalars({})
    bounds = pa.array([int(seconds.min()), int(seconds.max())])
    return pa.table([["bounds", "bounds"], bounds, [1, 1]], schema=scalars({}).schema)


def time_histogram(partition: pa.Table, low: int, width: int) -> pa.Table:
    """A tally ``times``: interactions in buckets of `width` seconds from `low` on; earlier ones ``before``."""
    seconds = flat(partition, TIMESTAMPS).to_numpy(zero_copy_only=False) // SECOND
    places = (seconds - low) // width
    inside = places[(places >= 0) & (places < BUCKETS)]
    counts = dense("times", np.bincount(inside, minlength=BUCKETS))
    return pa.concat_tables([counts, scalars({"before": int((places < 0).sum())})])


def find_time(histogram: Callable[[int, int], tuple[int, IntArray]], low: int, high: int, wanted: int) -> int:
    """The first second before which at least `wanted` interactions lie.

    Args:
        histogram: (low, width) -> interactions before `low`, and in each bucket.
        low: earliest second of the log.
        high: latest second.
        wanted: a number of interactions.
    """
    high += 1  # before this second lies everything
    while high - low > 1:
        width = -(-(high - low) // BUCKETS)
        before, counts = histogram(low, width)
        ends = before + np.cumsum(counts)
        bucket = int(np.searchsorted(ends, wanted))
        low, high = low + bucket * width, min(low + (bucket + 1) * width, high)
    return high
