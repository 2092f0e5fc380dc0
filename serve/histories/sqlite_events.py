"""Events in one SQLite file that all replicas of a machine share.

The file is in write-ahead mode with a sync at every commit: an append that returned survives ``kill -9`` and a power
cut. It has to lie on a local disk, as write-ahead mode needs memory that its processes share.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from components.errors import ArtifactError, UserError
from serve.histories.group_commit import GroupCommit
from serve.histories.store import FORMAT, Event, StoreDownError

EVENTS_FILE: Final = "events.sqlite3"
APPLICATION: Final = 0x64726563  # marks the file as ours
BUSY_S: Final = 5.0  # how long a write waits for another process's
_TABLES: Final = (
    "CREATE TABLE events (arrival INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, item_id TEXT NOT NULL, "
    "timestamp INTEGER NOT NULL, event_id TEXT, value REAL)",
    "CREATE INDEX by_user ON events (user_id, timestamp, arrival, item_id)",
    "CREATE UNIQUE INDEX by_event ON events (user_id, event_id) WHERE event_id IS NOT NULL",
)
_READ: Final = "SELECT item_id FROM events WHERE user_id = ? ORDER BY timestamp DESC, arrival DESC LIMIT ?"
_SINCE: Final = (
    "SELECT arrival, user_id, item_id, timestamp, event_id, value FROM events "
    "WHERE arrival > ? ORDER BY arrival LIMIT ?"
)
_INSERT: Final = (
    "INSERT INTO events (user_id, item_id, timestamp, event_id, value) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (user_id, event_id) WHERE event_id IS NOT NULL DO NOTHING"
)


class SqliteEvents:
    """The events of a folder; several processes may hold the same one.

    Args:
        folder: made on demand, for its owner alone.

    Raises:
        UserError: the folder cannot be made or written.
        ArtifactError: its file is damaged, or of another format version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / EVENTS_FILE
        _create(self.path)
        self._local = threading.local()
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._writer = GroupCommit(self._write, self._drop)

    def read(self, user_ids: Sequence[str], limit: int) -> list[list[str]]:
        """See `EventStore.read`."""
        with self._connection() as connection:
            return [
                [row[0] for row in connection.execute(_READ, (user_id, limit)).fetchall()][::-1] for user_id in user_ids
            ]

    def since(self, arrival: int, limit: int) -> list[tuple[int, Event]]:
        """The first `limit` events of all users behind number `arrival`, each with its own number, as they arrived.

        Raises:
            StoreDownError: the store does not answer.
        """
        with self._connection() as connection:
            rows = connection.execute(_SINCE, (arrival, limit)).fetchall()
        return [(row[0], Event(*row[1:])) for row in rows]

    def append(self, events: Sequence[Event]) -> int:
        """See `EventStore.append`.

        Raises:
            ValueError: an id holds half of a surrogate pair, which no UTF-8 text can.
        """
        for event in events:
            "".join((event.user_id, event.item_id, event.event_id or "")).encode()
        return self._writer.append(events)

    def check(self) -> None:
        """See `EventStore.check`."""
        self.read([""], 1)

    def close(self) -> None:
        """See `EventStore.close`."""
        self._writer.close()
        with self._lock:
            for connection in self._connections:
                connection.handle.close()
            self._connections.clear()

    def _write(self, appends: Sequence[Sequence[Event]]) -> list[int]:
        with self._connection() as connection, connection:  # the inner one commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            return [sum(_insert(connection, event) for event in events) for events in appends]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection. What fails drops it: the next call opens the file again."""
        try:
            held: _Connection | None = getattr(self._local, "held", None)
            if held is not None and held.inode != _inode(self.path):
                self._drop()  # what is written to a file that was moved or deleted is lost
                held = None
            if held is None:
                held = self._local.held = _Connection(self.path)
                with self._lock:
                    self._connections.add(held)
            yield held.handle
        except (sqlite3.Error, OSError) as error:
            self._drop()
            reason = getattr(error, "strerror", None) or error
            raise StoreDownError(f"{self.path}: the event store does not answer ({reason})") from error

    def _drop(self) -> None:
        held: _Connection | None = getattr(self._local, "held", None)
        if held is not None:
            self._local.held = None
            with self._lock:
                self._connections.discard(held)
            held.handle.close()


class _Connection:
    """An open file; `inode` tells whether it is still the one of its path."""

    def __init__(self, path: Path) -> None:
        self.inode = _inode(path)
        # Only `close` uses it from another thread. "rw": a file that is gone is an error, not a new one.
        self.handle = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", BUSY_S, isolation_level=None, check_same_thread=False, uri=True
        )
        self.handle.execute("PRAGMA synchronous = FULL")


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _insert(connection: sqlite3.Connection, event: Event) -> int:
    row = (event.user_id, event.item_id, event.timestamp, event.event_id, event.value)
    return connection.execute(_INSERT, row).rowcount


def _create(path: Path) -> None:
    """Make the file where there is none, and check it where there is one; one process at a time."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # what users did is for its owner alone
            _prepare(path)
            os.fsync(folder)  # the file's name, too, has to survive a power cut
        finally:
            os.close(folder)
    except (OSError, sqlite3.OperationalError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{path}: events cannot be kept there ({reason}); name a folder on a local disk that can be written with "
            "--histories FOLDER, or redis://HOST:PORT/NUMBER"
        ) from error
    except sqlite3.DatabaseError as error:
        raise ArtifactError(
            f"{path}: no readable event store ({error}); move it away, or name another folder with --histories FOLDER"
        ) from error


def _prepare(path: Path) -> None:
    connection = sqlite3.connect(path, BUSY_S, isolation_level=None)
    try:
        marks = tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if marks == (APPLICATION, FORMAT):
            connection.execute("BEGIN IMMEDIATE")  # fails now where the file cannot be written
            connection.execute("ROLLBACK")
            return
        if marks != (0, 0) or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ArtifactError(
                f"{path}: format version {marks[1]!r} of another program or version, this one reads {FORMAT}; name "
                "another folder with --histories FOLDER"
            )
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError("its file system does not support write-ahead mode")
        connection.execute("BEGIN IMMEDIATE")
        for statement in (*_TABLES, f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {FORMAT}"):
            connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        connection.close()
