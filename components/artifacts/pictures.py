"""Thumbnails of an artifact's items: one Parquet file, read in small groups, so that a process holds none of them."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.format import REMEDY
from components.errors import ArtifactError
from components.schema import ITEM

PICTURES_FILE: Final = "pictures.parquet"  # item, picture; only items that have one, by item number
PICTURE: Final = "picture"
MEDIA_TYPE: Final = "image/webp"
GROUP_ROWS: Final = 32  # pictures that are read to get one
SCHEMA: Final = pa.schema([(ITEM, pa.int32()), (PICTURE, pa.binary())])


class Pictures:
    """The pictures of one artifact, by item number. Safe to ask from several threads.

    Args:
        path: a file of `PICTURES_FILE`'s form. It stays open, so that it may be removed meanwhile.

    Raises:
        ArtifactError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
            self._items = self._file.read([ITEM]).column(ITEM).to_numpy()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise ArtifactError(f"{path}: not readable as a table of pictures ({error}); {REMEDY}") from error
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._lock = Lock()  # one reader of Parquet is not made for several threads

    def __len__(self) -> int:
        return len(self._items)

    def get(self, item: int) -> bytes | None:
        """The encoded picture of item number `item`; None where it has none."""
        place = int(np.searchsorted(self._items, item))
        if place == len(self._items) or self._items[place] != item:
            return None
        group = int(np.searchsorted(self._ends, place, side="right"))
        first = int(self._ends[group - 1]) if group else 0
        with self._lock:
            column = self._file.read_row_group(group, [PICTURE]).column(PICTURE)
        content: bytes = column[place - first].as_py()
        return content
