"""The histories that a run was prepared with: read once, flat in memory, found by user id."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.artifacts.format import DIGEST, REMEDY, verify
from components.data.prepared import PreparedSet
from components.errors import ArtifactError
from components.recommender import HISTORIES_FILE
from components.schema import ITEM_ID, ITEMS, ITEMS_FILE, MANIFEST_FILE, USER, USER_ID

_COLUMNS = [USER_ID, USER, ITEMS]


@dataclass(frozen=True)
class History:
    """What one user took.

    Attributes:
        items: item ids, oldest first; an item may come several times.
        user: the user's number in the prepared set; 0 where the run did not know the user.
    """

    items: list[str]
    user: int = 0


class BaseHistories:
    """Users in sorted order beside the flat items of all; about 4 bytes per interaction and 40 per user.

    Args:
        user_ids: (U,) strings, in any order; several rows of one user are its parts, oldest first.
        users: (U,) user numbers.
        histories: (U,) lists of item numbers 1..N, oldest first.
        item_ids: (N,) strings.
        fingerprint: of the data that the user numbers belong to, see `fingerprint_of`.

    Raises:
        ArtifactError: an item number that `item_ids` does not hold.
    """

    def __init__(self, user_ids: pa.Array, users: pa.Array, histories: pa.Array, item_ids: pa.Array, fingerprint: str):
        order = pc.sort_indices(user_ids)  # stable; by UTF-8 bytes, which is how Python compares texts, too
        self._user_ids = user_ids.take(order)
        self._rows = order.to_numpy().astype(np.int32)
        self._users: NDArray[np.int32] = users.to_numpy(zero_copy_only=False).astype(np.int32)
        self._offsets: NDArray[np.int64] = histories.offsets.to_numpy().astype(np.int64)
        self._items: NDArray[np.int32] = histories.values.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        self._item_ids, self.fingerprint = item_ids, fingerprint
        used = self._items[self._offsets[0] : self._offsets[-1]]
        if len(used) and not 1 <= used.min() <= used.max() <= len(item_ids):
            raise ArtifactError(f"histories name items {used.min()} to {used.max()}, the catalog has {len(item_ids)}")

    @classmethod
    def empty(cls) -> BaseHistories:
        """Nobody."""
        texts = pa.array([], pa.string())
        return cls(texts, pa.array([], pa.int32()), pa.array([], pa.list_(pa.int32())), texts, "")

    @classmethod
    def of_artifact(cls, folder: Path) -> BaseHistories:
        """The histories that an export with ``histories: true`` put into the artifact; nobody where it has none.

        Raises:
            ArtifactError: the file is damaged.
        """
        manifest = verify(folder, only=())
        if HISTORIES_FILE not in manifest["files"]:
            return cls.empty()
        verify(folder, only=(HISTORIES_FILE, ITEMS_FILE))
        return cls._read([folder / HISTORIES_FILE], folder / ITEMS_FILE, fingerprint_of(manifest))

    @classmethod
    def of_prepared(cls, folder: Path) -> BaseHistories:
        """The whole sequences of a prepared set, its validation and test parts too: serving wants what is latest.

        Raises:
            ArtifactError: the set is incomplete or damaged.
        """
        files = PreparedSet(folder).sequence_files
        fingerprint = hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()
        return cls._read(files, folder / ITEMS_FILE, fingerprint) if files else cls.empty()

    @classmethod
    def _read(cls, files: Sequence[Path], items: Path, fingerprint: str) -> BaseHistories:
        try:
            table = pa.concat_tables([pq.read_table(file, columns=_COLUMNS) for file in files])
            catalog = pq.read_table(items, columns=[ITEM_ID])
            histories = _one_chunk(table[ITEMS].cast(pa.large_list(pa.int32())))
            users = _one_chunk(table[USER])
            return cls(_texts(table[USER_ID]), users, histories, _texts(catalog[ITEM_ID]), fingerprint)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise ArtifactError(f"{files[0]}: histories are not readable ({error}); {REMEDY}") from error

    def __len__(self) -> int:
        """Number of users; one in several rows counts as often."""
        return len(self._rows)

    def find(self, user_id: str, limit: int) -> History | None:
        """The latest `limit` items of a user; None for an unknown one."""
        size = len(self._rows)
        place = bisect.bisect_left(range(size), user_id, key=self._user_id)
        items: list[NDArray[np.int32]] = []
        user = 0
        while place < size and self._user_id(place) == user_id:
            row = self._rows[place]
            items.append(self._items[self._offsets[row] : self._offsets[row + 1]])
            user = int(self._users[row])
            place += 1
        if not items:
            return None
        latest = np.concatenate(items)[-limit:] if limit else np.empty(0, np.int32)
        return History(self._item_ids.take(pa.array(latest - 1)).to_pylist(), user)

    def _user_id(self, place: int) -> str:
        found: str = self._user_ids[place].as_py()
        return found


def fingerprint_of(manifest: dict[str, object]) -> str:
    """What tells whether an artifact was trained on a prepared set: user numbers mean the same there alone."""
    return str(manifest.get("data_fingerprint") or manifest.get(DIGEST))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _texts(column: pa.ChunkedArray) -> pa.Array:
    return _one_chunk(column.cast(pa.large_string()))
