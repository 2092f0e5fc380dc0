"""Counts as a long table (kind, key, value): what partitions tell the driver, merged by adding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
SCHEMA: Final = pa.schema([("kind", pa.string()), ("key", pa.int64()), ("value", pa.int64())])


def dense(kind: str, values: NDArray[np.generic]) -> pa.Table:
    """Counts indexed by position; zeros are left out."""
    counts = np.asarray(values, dtype=np.int64)
    keys = np.flatnonzero(counts)
    return sparse(kind, keys, counts[keys])


def sparse(kind: str, keys: NDArray[np.generic], values: NDArray[np.generic]) -> pa.Table:
    """Counts by key."""
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(keys), np.int32)), pa.array([kind])).cast(pa.string())
    return pa.table([names, pa.array(keys, pa.int64()), pa.array(values, pa.int64())], schema=SCHEMA)


def scalars(counts: Mapping[str, int]) -> pa.Table:
    """Single numbers, each a kind of its own with key 0."""
    names = list(counts)
    return pa.table([names, np.zeros(len(names), np.int64), [int(counts[name]) for name in names]], schema=SCHEMA)


class Tally:
    """The sum of many tables.

    >>> both = Tally([scalars({"users": 2}), scalars({"users": 3})])
    >>> both.scalar("users"), both.dense("items", 2).tolist()
    (5, [0, 0])
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        merged = pa.concat_tables([SCHEMA.empty_table(), *tables])
        kinds = merged["kind"].combine_chunks().dictionary_encode()
        self._codes: IntArray = kinds.indices.to_numpy(zero_copy_only=False)
        self._kinds: list[str] = kinds.dictionary.to_pylist()
        self._keys: IntArray = merged["key"].to_numpy()
        self._values: IntArray = merged["value"].to_numpy()

    def pairs(self, kind: str) -> tuple[IntArray, IntArray]:
        """Ascending keys of a kind and their sums."""
        keys, values = self._of(kind)
        unique, places = np.unique(keys, return_inverse=True)
        sums = np.zeros(len(unique), np.int64)
        np.add.at(sums, places, values)
        return unique, sums

    def dense(self, kind: str, size: int) -> IntArray:
        """(size,) sums by key."""
        keys, values = self._of(kind)
        sums = np.zeros(size, np.int64)
        np.add.at(sums, keys, values)
        return sums

    def scalar(self, kind: str) -> int:
        """Sum over all keys of a kind, modulo 2^64."""
        return int(self._of(kind)[1].sum())

    def _of(self, kind: str) -> tuple[IntArray, IntArray]:
        if kind not in self._kinds:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        chosen = self._codes == self._kinds.index(kind)
        return self._keys[chosen], self._values[chosen]
