"""Sorted runs of a rating log through Ray Data: one task per piece of the log, and only counts come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from components.data.cleaning import PrepareConfig
from components.data.readers import Log
from pipelines.prepare_ratings import sort_piece
from pipelines.ray_partitions import PIECE, own_errors, settings


def sort_with_ray(pieces: Log, config: PrepareConfig, folder: Path) -> Iterator[pa.Table]:
    """See `pipelines.prepare_ratings.sort_piece`; the tables come as the pieces are done.

    Args:
        pieces: of the log.
        config: scale and labels.
        folder: where the runs go; every node must be able to write there.
    """
    sort: Any = _sort
    count = len(pieces.sources)
    with settings(), own_errors():
        rows = ray.data.from_items([{PIECE: index} for index in range(count)], override_num_blocks=count)
        told = rows.map_batches(sort, fn_args=(ray.put(pieces), config, folder), batch_format="pyarrow")
        yield from told.iter_batches(batch_size=None, batch_format="pyarrow")


def _sort(batch: pa.Table, pieces_ref: Any, config: PrepareConfig, folder: Path) -> pa.Table:
    pieces: Log = ray.get(pieces_ref)
    found = [sort_piece(pieces.sources[index], pieces, config, folder) for index in batch[PIECE].to_pylist()]
    return pa.concat_tables(found)
