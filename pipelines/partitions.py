"""Where partitions of the log live: in this process, or in a Ray cluster. The functions that work on them are the same.

A function receives a partition (an Arrow table) and arguments, and returns a table: another partition (`transform`), or
something small that the driver adds up (`collect`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import polars as pl
import pyarrow as pa

from components.data.cleaning import PrepareConfig
from components.data.readers import Log, no_rows, read_rows
from components.data.sequences import gather
from components.data.tally import Tally
from pipelines.stages import Progress

PartitionFunction = Callable[..., pa.Table]


class Partitions(Protocol):
    """The users of a log, in parts that no user spans, ordered by the hash of the user id.

    Attributes:
        num_ranges: into how many ranges of the hash the users are cut.
    """

    num_ranges: int

    def transform(self, function: PartitionFunction, *arguments: Any) -> Self:
        """Replace every partition by `function` of it."""

    def collect(self, function: PartitionFunction, *arguments: Any) -> Iterator[pa.Table]:
        """`function` of every partition, in no particular order."""


def tally(partitions: Partitions, function: PartitionFunction, *arguments: Any) -> Tally:
    """The sum of what `function` counts in all partitions."""
    return Tally(partitions.collect(function, *arguments))


class LocalPartitions:
    """One partition in this process: the fast path."""

    num_ranges = 1

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def transform(self, function: PartitionFunction, *arguments: Any) -> LocalPartitions:
        """Replace the partition by `function` of it."""
        return LocalPartitions(function(self._table, *arguments))

    def collect(self, function: PartitionFunction, *arguments: Any) -> Iterator[pa.Table]:
        """`function` of the partition."""
        yield function(self._table, *arguments)


def read_locally(log: Log, config: PrepareConfig, rejected: Path, progress: Progress) -> LocalPartitions:
    """Read, clean and gather a log in this process."""
    frames = [no_rows(log)]
    for source in log.sources:
        for frame in read_rows(source, log, rejected):
            progress.advance(frame.height)
            frames.append(frame)
    rows = pl.concat(frames, how="vertical", rechunk=True)
    frames.clear()
    return LocalPartitions(gather(rows, 1, config.duplicates, config.min_rating))
