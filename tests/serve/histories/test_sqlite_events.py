from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import ArtifactError, UserError
from serve.histories.sqlite_events import EVENTS_FILE, SqliteEvents
from serve.histories.store import Event, StoreDownError

ROOT = Path(__file__).parents[3]

APPEND = """
import sys
from serve.histories.sqlite_events import SqliteEvents
from serve.histories.store import Event
store = SqliteEvents(sys.argv[1])
for number in range(int(sys.argv[3])):
    assert store.append([Event("ann", f"{sys.argv[2]}-{number}", 5)]) == 1
store.close()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteEvents]:
    store = SqliteEvents(tmp_path / "new" / "events")
    yield store
    store.close()


def test_processes_that_open_and_append_at_once_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    command = [sys.executable, "-c", APPEND, str(folder)]
    processes = [subprocess.Popen([*command, name, "50"], cwd=ROOT) for name in ("a", "b", "c", "d")]
    assert [process.wait(120) for process in processes] == [0] * 4
    store = SqliteEvents(folder)
    (items,) = store.read(["ann"], 1000)
    store.close()
    for name in ("a", "b", "c", "d"):
        assert [item for item in items if item.startswith(name)] == [f"{name}-{number}" for number in range(50)]
    assert len(items) == 200


def test_another_process_knows_what_one_was_told(store: SqliteEvents) -> None:
    other = SqliteEvents(store.path.parent)
    assert other.read(["ann"], 9) == [[]]
    store.append([Event("ann", "a", 1)])
    assert other.read(["ann"], 9) == [["a"]]
    other.close()


def test_the_folder_is_its_owners_alone(store: SqliteEvents) -> None:
    assert store.path.parent.stat().st_mode & 0o077 == 0


def test_the_file_is_its_owners_alone_wherever_it_lies(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    store = SqliteEvents(tmp_path)
    store.append([Event("ann", "a", 1)])
    modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir()}
    store.close()
    assert modes == {EVENTS_FILE: 0, f"{EVENTS_FILE}-wal": 0, f"{EVENTS_FILE}-shm": 0}


def test_commits_are_synced(store: SqliteEvents) -> None:
    with store._connection() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 2", "PRAGMA application_id = 7"])
def test_another_format_is_refused(store: SqliteEvents, statement: str) -> None:
    with sqlite3.connect(store.path) as connection:
        connection.execute(statement)
    with pytest.raises(ArtifactError, match=rf"{EVENTS_FILE}: format version .* reads 1; name another folder"):
        SqliteEvents(store.path.parent)


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / EVENTS_FILE) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(ArtifactError, match="another program"):
        SqliteEvents(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_bytes(b"not a database " * 1000)
    with pytest.raises(ArtifactError, match=r"no readable event store.*--histories"):
        SqliteEvents(tmp_path)


def test_a_place_that_is_no_folder_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot be kept there.*--histories FOLDER") as caught:
        SqliteEvents(tmp_path / "file" / "events")
    assert caught.value.exit_code == 2


def test_a_store_that_vanishes_acknowledges_nothing_until_it_is_back(store: SqliteEvents, tmp_path: Path) -> None:
    store.append([Event("ann", "a", 1)])
    store.path.parent.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(StoreDownError, match="No such file"):
            store.append([Event("ann", "b", 2)])
        with pytest.raises(StoreDownError, match="No such file"):
            store.read(["ann"], 9)
    (tmp_path / "away").rename(store.path.parent)
    assert store.append([Event("ann", "c", 3)]) == 1
    assert store.read(["ann"], 9) == [["a", "c"]]


def test_a_file_that_was_replaced_is_opened_anew(store: SqliteEvents, tmp_path: Path) -> None:
    other = SqliteEvents(tmp_path / "other")
    other.append([Event("ann", "other", 1)])
    other.close()
    store.append([Event("ann", "a", 1)])
    shutil.rmtree(store.path.parent)
    (tmp_path / "other").rename(store.path.parent)
    assert store.read(["ann"], 9) == [["other"]]
    store.append([Event("ann", "b", 2)])
    assert store.read(["ann"], 9) == [["other", "b"]]


def test_a_locked_file_is_said_and_the_next_append_succeeds(
    store: SqliteEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.histories.sqlite_events.BUSY_S", 0.05)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreDownError, match="locked"):
        store.append([Event("ann", "a", 1)])
    assert store.read(["ann"], 9) == [[]]
    holder.execute("ROLLBACK")
    holder.close()
    assert store.append([Event("ann", "a", 1)]) == 1


def test_a_closed_store_refuses(tmp_path: Path) -> None:
    store = SqliteEvents(tmp_path)
    store.close()
    with pytest.raises(StoreDownError, match="closed"):
        store.append([Event("ann", "a", 1)])
    store.close()
