"""``kill -9`` of a process that appends events: what it acknowledged is there, in order, whenever it died."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve.histories.sqlite_events import SqliteEvents
from serve.histories.store import Event

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parents[2]
THREADS = 6
APPEND = f"""
import sys, threading
from serve.histories.sqlite_events import SqliteEvents
from serve.histories.store import Event
store = SqliteEvents(sys.argv[1])
lock = threading.Lock()

def work(user):
    for number in range(10**9):
        event = Event(f"{{sys.argv[2]}}-user-{{user}}", str(number), 5, str(number))
        assert store.append([event]) == 1
        with lock:
            sys.stdout.write(f"{{event.user_id}} {{number}}\\n")
            sys.stdout.flush()

for user in range({THREADS}):
    threading.Thread(target=work, args=(user,)).start()
"""


def acknowledged_until_killed(folder: Path, life: str, count: int) -> list[tuple[str, str]]:
    """What a process said that it stored before it was killed behind its `count`-th word."""
    command = [sys.executable, "-c", APPEND, str(folder), life]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    process.kill()
    rest = process.stdout.read()
    assert process.wait(30) == -9
    lines += rest[: rest.rfind("\n") + 1].splitlines()  # a word that was cut is no acknowledgement
    return [(line.split()[0], line.split()[1]) for line in lines]


@pytest.mark.parametrize("lives", [[1, 7, 40, 150, 400]])
def test_every_acknowledged_event_survives(tmp_path: Path, lives: list[int]) -> None:
    said: dict[str, list[str]] = {}
    for life, count in enumerate(lives):
        for user_id, item_id in acknowledged_until_killed(tmp_path, str(life), count):
            said.setdefault(user_id, []).append(item_id)
        store = SqliteEvents(tmp_path)
        for user_id, items in zip(said, store.read(list(said), 10**6), strict=True):
            assert items[: len(said[user_id])] == said[user_id], "each acknowledged event, in order"
            assert len(items) <= len(said[user_id]) + 1, "at most the one that was being acknowledged"
            assert store.append([Event(user_id, "again", 9, said[user_id][-1])]) == 0, "known after the kill"
        store.close()
    assert sum(map(len, said.values())) >= sum(lives)
