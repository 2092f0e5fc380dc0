"""Partitions of the log in a Ray cluster: read in parallel, shuffled once by range of users, then never moved.

No process holds all rows, the driver least of all: it sees counts, item ids and the item file.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data.context import DataContext, ShuffleStrategy

from components.data.cleaning import PrepareConfig
from components.data.partition import RANGE
from components.data.readers import Log, no_rows, read_rows
from components.data.sequences import gather, user_range
from components.data.tally import Tally, dense
from components.errors import DistilrecError, StageError, StorageError
from components.schema import ITEM_ID, USER_ID
from pipelines.partitions import PartitionFunction
from pipelines.stages import Progress
from pipelines.storage.exchange import Exchange, borrowed, call

ROWS_PER_RANGE: Final = 1_250_000  # a partition of this size takes some 300 MB while it is gathered
PIECE: Final = "piece"  # the column by which a task knows what to read
KEY: Final = "key"  # the column by which Ray shuffles
STRATEGIES: Final = {"hash": ShuffleStrategy.HASH_SHUFFLE, "v2": ShuffleStrategy.SHUFFLE_V2}
BLOCK_BYTES: Final = 1 << 30  # Ray cuts larger blocks, which could cut a user in two
NO_STORAGE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
LARGE: Final = 1 << 16  # bytes; larger arguments travel through the object store, once


class RayPartitions:
    """Partitions as blocks of a materialized dataset."""

    def __init__(
        self,
        dataset: ray.data.Dataset,
        num_ranges: int,
        custom: Mapping[str, float] | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._dataset, self._custom = dataset, dict(custom or {})
        self._exchange = exchange
        self.num_ranges = num_ranges

    def transform(self, function: PartitionFunction, *arguments: Any) -> RayPartitions:
        """Replace every block by `function` of it."""
        with settings(), own_errors():
            return RayPartitions(
                self._map(function, arguments).materialize(), self.num_ranges, self._custom, self._exchange
            )

    def collect(self, function: PartitionFunction, *arguments: Any) -> Iterator[pa.Table]:
        """`function` of every block, as the blocks finish."""
        with settings(), own_errors():
            yield from self._map(function, arguments).iter_batches(batch_size=None, batch_format="pyarrow")
        written = _written(arguments)
        if self._exchange and written:
            self._exchange.collect(written)

    def _map(self, function: PartitionFunction, arguments: tuple[Any, ...]) -> ray.data.Dataset:
        apply: Any = _apply  # Ray's own annotation does not know `fn_args`
        return self._dataset.map_batches(
            apply,
            fn_args=(function, [_share(argument) for argument in arguments], self._exchange),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            resources=self._custom,
        )


def read_with_ray(
    log: Log,
    config: PrepareConfig,
    estimate: int,
    rejected: Path,
    progress: Progress,
    custom: Mapping[str, float] | None = None,
) -> RayPartitions:
    """Read and clean a log in parallel, bring every user's rows together, and gather them.

    Args:
        log: what to read.
        config: how to clean it, and into how many ranges of users to cut it.
        estimate: about how many rows it has.
        rejected: folder of the quarantined rows.
        progress: told what happens.
        custom: resources that say where tasks run; the shuffle itself runs anywhere.

    Raises:
        DataError: a file cannot be read.
    """
    pieces = log.split()
    num_ranges = config.partitions or -(-estimate // ROWS_PER_RANGE)
    progress.note(f"reading {len(pieces.sources)} pieces into {num_ranges} ranges of users")
    read: Any = _read_piece
    exchange = Exchange.of(rejected)
    with settings(shuffle_strategy=STRATEGIES[config.shuffle_strategy]), own_errors():
        rows = ray.data.from_items(
            [{PIECE: index} for index in range(len(pieces.sources))], override_num_blocks=len(pieces.sources)
        ).map_batches(
            read,
            fn_args=(ray.put(pieces), rejected, shuffle_keys(num_ranges), exchange),
            batch_format="pyarrow",
            resources=dict(custom or {}),
        )
        shuffled = rows.repartition(num_ranges, keys=[KEY])
        gathered = RayPartitions(shuffled, num_ranges, custom, exchange).transform(
            gather, num_ranges, config.duplicates, config.min_rating
        )
    if exchange:
        exchange.collect(rejected)
    _check_whole(gathered)
    return gathered


def shuffle_keys(num_ranges: int) -> NDArray[np.int32]:
    """(ranges,) a key for every range, so that Ray's hash sends every range to a block of its own.

    Ray hashes keys as polars does. Should that change, ranges share blocks: slower, and still right.
    """
    candidates = pl.DataFrame({KEY: np.arange(num_ranges * 32, dtype=np.int32)})
    places = (candidates.hash_rows(seed=0) % num_ranges).to_numpy()
    found, keys = np.unique(places, return_index=True)
    chosen = np.arange(num_ranges, dtype=np.int32)
    if len(found) == num_ranges:
        chosen = keys.astype(np.int32)
    return chosen


def _read_piece(
    batch: pa.Table, log_ref: Any, rejected: Path, keys: NDArray[np.int32], exchange: Exchange | None
) -> Iterator[pa.Table]:
    """Read what the rows of `batch` name: one block per batch of the file."""
    log: Log = ray.get(log_ref)
    with borrowed(exchange, rejected, rejected) as folder:
        for piece in batch[PIECE].to_pylist():
            for rows in read_rows(log.sources[piece], log, folder):
                ranges = rows.select(user_range(len(keys))).to_series().to_numpy()
                yield _keyed(rows, keys[ranges])
    yield _keyed(no_rows(log), keys[:0])  # a task must yield something, and typed


def _keyed(rows: pl.DataFrame, keys: NDArray[np.int32]) -> pa.Table:
    """Rows as Ray shuffles them: ids as text, since codes hold within a process alone."""
    texts = rows.with_columns(pl.col(USER_ID, ITEM_ID).cast(pl.String), pl.Series(KEY, keys))
    return texts.to_arrow(compat_level=pl.CompatLevel.oldest())


def _apply(block: pa.Table, function: PartitionFunction, shared: list[Any], exchange: Exchange | None) -> pa.Table:
    arguments = [ray.get(argument) if isinstance(argument, ray.ObjectRef) else argument for argument in shared]
    return call(exchange, _written(arguments), function, block, *arguments)


def _written(arguments: Iterable[Any]) -> Path | None:
    """The folder that a function writes to: the only path that one is ever given."""
    return next((argument for argument in arguments if isinstance(argument, Path)), None)


def _share(argument: Any) -> Any:
    return ray.put(argument) if getattr(argument, "nbytes", 0) > LARGE else argument


def _check_whole(gathered: RayPartitions) -> None:
    """Refuse blocks that Ray cut within a range: a user could lie in two of them."""
    blocks = Tally(gathered.collect(_ranges, gathered.num_ranges)).dense("blocks", gathered.num_ranges)
    if (blocks > 1).any():
        raise StageError(
            f"a range of users is larger than {BLOCK_BYTES >> 20} MB and was cut: raise prepare.partitions "
            f"above {gathered.num_ranges}"
        )


def _ranges(partition: pa.Table, num_ranges: int) -> pa.Table:
    """A tally ``blocks``: 1 for every range that the block holds."""
    return dense("blocks", np.bincount(np.unique(partition[RANGE].to_numpy()), minlength=num_ranges))


@contextmanager
def settings(**chosen: Any) -> Iterator[None]:
    """Ray Data as this stage needs it; the process's own settings come back afterwards."""
    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    wanted = {"target_max_block_size": BLOCK_BYTES, "enable_progress_bars": False, **chosen}
    before = {name: getattr(context, name) for name in wanted}
    level = logger.level
    logger.setLevel(logging.ERROR)
    for name, value in wanted.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


@contextmanager
def own_errors() -> Iterator[None]:
    """Bring out the error that a task raised on purpose, or a full disk; Ray wraps them in its own."""
    try:
        yield
    except ray.exceptions.RayError as error:
        for cause in _causes(error):
            if isinstance(cause, DistilrecError):
                raise cause from error
            if isinstance(cause, OSError) and cause.errno in NO_STORAGE:
                raise StorageError(f"a task of stage prepare cannot write: {cause}; free some space") from error
        raise StageError(f"a task of stage prepare failed: {str(error).splitlines()[-1]}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what is under it, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__
