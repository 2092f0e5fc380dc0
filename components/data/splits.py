"""Where each user's training ends and validation ends, and what that leaves to count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.data.partition import count_marked, flat, offsets_of
from components.data.tally import dense, scalars
from components.data.timestamps import SECOND
from components.schema import TIMESTAMPS, TRAIN_END, USER_ID, VALID_END

IntArray = NDArray[np.int64]
MIN_LENGTH = 3  # of a sequence that gives one item to validation, one to the test and keeps one
BUCKETS = 4096  # per step of the search for a cut
_HASH_SEED = 10


@dataclass(frozen=True)
class Cuts:
    """Two points in time, microseconds: interactions before `valid_from` train, before `test_from` validate."""

    valid_from: int
    test_from: int


@dataclass(frozen=True)
class Shares:
    """Which shares of the sequences validate and test."""

    valid: float
    test: float


def split(partition: pa.Table, how: Cuts | Shares | None) -> pa.Table:
    """Add ``train_end`` and ``valid_end``: by points in time, by whole sequences, or leave-one-out for None."""
    offsets = offsets_of(partition)
    if how is None:
        ends = leave_one_out(np.diff(offsets))
    elif isinstance(how, Shares):
        ends = hold_out(np.diff(offsets), _places(partition), how)
    else:
        times = flat(partition, TIMESTAMPS).to_numpy(zero_copy_only=False)
        ends = (_before(times, offsets, how.valid_from), _before(times, offsets, how.test_from))
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


def hold_out(lengths: IntArray, places: NDArray[np.float64], shares: Shares) -> tuple[IntArray, IntArray]:
    """Sequences by their place in [0, 1): the first test, the next validate, the rest only train.

    Of a sequence that tests nothing trains; of one that validates all but the last item does. A single item trains.

    >>> [end.tolist() for end in hold_out(np.array([4, 4, 4]), np.array([0.0, 0.2, 0.9]), Shares(0.1, 0.2))]
    [[0, 3, 4], [3, 4, 4]]
    """
    long = lengths > 1
    test = long & (places < shares.test)
    valid = long & ~test & (places < shares.test + shares.valid)
    return np.where(test, 0, lengths - valid), lengths - test


def _places(partition: pa.Table) -> NDArray[np.float64]:
    """(U,) of every sequence a number in [0, 1) that depends on its user and its place among the user's alone."""
    users = pl.Series(USER_ID, partition[USER_ID], dtype=pl.String).to_frame()
    numbered = users.select(USER_ID, pl.int_range(pl.len()).over(USER_ID).alias("number"))
    hashed: NDArray[np.uint64] = numbered.hash_rows(_HASH_SEED).to_numpy()
    return (hashed >> np.uint64(11)).astype(np.float64) / 2**53


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
