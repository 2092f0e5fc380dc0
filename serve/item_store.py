"""Items that were added while serving, in a small SQLite file: an acknowledged one survives a killed process."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from components.errors import StorageError

VERSION: Final = 1  # of the tables
WAIT_S: Final = 10.0  # for another replica that writes
TABLES: Final = """
CREATE TABLE IF NOT EXISTS items (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    teachers TEXT NOT NULL,
    item_id TEXT NOT NULL,
    title TEXT,
    texts TEXT NOT NULL,
    vectors BLOB NOT NULL,
    UNIQUE (teachers, item_id)
)
"""


@dataclass(frozen=True)
class KeptItem:
    """An item as it is kept: not its rows, but what every student of the same teachers can make its rows from.

    Attributes:
        item_id: as users call it.
        title: for people.
        texts: by column of the run; empty where only vectors were given.
        vectors: (d_k,) float32 of every teacher by name.
    """

    item_id: str
    title: str | None
    texts: Mapping[str, str]
    vectors: Mapping[str, Tensor]


class ItemStore:
    """All replicas of an endpoint on one machine share one file; its numbers only grow.

    Args:
        path: the file; it and its folder are made when the first item is added.

    Every method raises StorageError where the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def add(self, teachers: str, items: Sequence[KeptItem]) -> list[str]:
        """Keep items durably: they are on the disk when this returns.

        Args:
            teachers: identity of the teachers that made the vectors, see `serve.item_source`.
            items: no id twice.

        Returns:
            The ids that were new for these teachers; the others stay as they are.
        """
        added = []
        with self._open() as connection:
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                for item in items:
                    texts = json.dumps(dict(item.texts), ensure_ascii=False)
                    found = connection.execute(
                        "INSERT OR IGNORE INTO items (teachers, item_id, title, texts, vectors) VALUES (?, ?, ?, ?, ?)",
                        (teachers, item.item_id, item.title, texts, save(dict(item.vectors))),
                    )
                    added += [item.item_id] * found.rowcount
        return added

    def last(self) -> int:
        """The number of the last item; 0 where there is none."""
        with self._open(make=False) as connection:
            if connection is None:
                return 0
            return int(connection.execute("SELECT COALESCE(MAX(number), 0) FROM items").fetchone()[0])

    def between(self, after: int, last: int, teachers: str) -> tuple[list[KeptItem], list[str]]:
        """The items numbered ``after + 1 .. last`` with vectors of `teachers`, and the ids of those without."""
        with self._open(make=False) as connection:
            if connection is None:
                return [], []
            rows = connection.execute(
                "SELECT item_id, title, texts, vectors FROM items "
                "WHERE number > ? AND number <= ? AND teachers = ? ORDER BY number",
                (after, last, teachers),
            ).fetchall()
            others = connection.execute(
                "SELECT item_id FROM items WHERE number > ? AND number <= ? AND teachers <> ?", (after, last, teachers)
            )
            return [self._item(row) for row in rows], [str(row[0]) for row in others]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _item(self, row: tuple[str, str | None, str, bytes]) -> KeptItem:
        try:
            return KeptItem(row[0], row[1], json.loads(row[2]), load(row[3]))
        except (SafetensorError, ValueError) as error:
            raise StorageError(f"{self.path}: the item {row[0]!r} is damaged ({error})") from error

    @contextmanager
    def _open(self, make: bool = True) -> Iterator[sqlite3.Connection | None]:
        """The connection, for one thread at a time; None where there is no file and none is made."""
        with self._lock:
            try:
                if self._connection is not None and self._inode() != self._opened:  # its numbers are others
                    raise StorageError(f"{self.path}: was removed or replaced while serving; start the endpoint again")
                if self._connection is None and (make or self.path.is_file()):
                    self._connection = self._connected()
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise StorageError(f"{self.path}: cannot be read or written ({error})") from error

    def _connected(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=WAIT_S, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # the log is on the disk before a commit returns
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise StorageError(f"{self.path}: is of version {version}, this program reads {VERSION}")
            connection.execute(TABLES)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            connection.close()
            raise
        self._opened = self._inode()
        return connection

    def _inode(self) -> tuple[int, int] | None:
        """What tells the file from another one at its path; None where there is none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino
