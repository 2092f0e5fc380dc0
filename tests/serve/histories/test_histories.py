from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from serve.histories.base import BaseHistories, History
from serve.histories.histories import Histories
from serve.histories.source import HistorySource
from serve.histories.sqlite_events import SqliteEvents
from serve.histories.store import Event, EventStore, StoreDownError
from serve.settings import MAX_HISTORY
from tests.serve.histories.test_base import write_prepared
from tests.tiny_artifact import write_artifact


class Deaf:
    """A store that is asked and never answers, until it is let go."""

    def __init__(self) -> None:
        import threading

        self.let_go = threading.Event()

    def read(self, user_ids: Sequence[str], limit: int) -> list[list[str]]:
        assert self.let_go.wait(30)
        return [[] for _ in user_ids]

    def append(self, events: Sequence[Event]) -> int:
        assert self.let_go.wait(30)
        return 0

    def check(self) -> None:
        assert self.let_go.wait(30)

    def close(self) -> None:
        self.let_go.set()


def test_events_stand_behind_the_base(tmp_path: Path) -> None:
    base = BaseHistories.of_prepared(write_prepared(tmp_path / "prepare", [("ann", 1, [1, 2]), ("bob", 2, [3])]))
    histories = Histories(base, SqliteEvents(tmp_path / "events"))
    assert asyncio.run(histories.append([Event("ann", "new", 0), Event("eve", "id-4", 5)])) == 2
    found = asyncio.run(histories.read(["ann", "bob", "eve", "nobody"]))
    assert found == [History(["id-1", "id-2", "new"], 1), History(["id-3"], 2), History(["id-4"]), None]
    assert histories.takes_events
    assert histories.knows_users
    asyncio.run(histories.check())
    histories.close()


@pytest.mark.parametrize(("arrived", "of_base"), [(0, 3), (MAX_HISTORY - 1, 1), (MAX_HISTORY, 0), (MAX_HISTORY + 5, 0)])
def test_a_history_is_bounded_to_its_latest_items(tmp_path: Path, arrived: int, of_base: int) -> None:
    base = BaseHistories.of_prepared(write_prepared(tmp_path / "prepare", [("ann", 1, [1, 2, 3])]))
    histories = Histories(base, SqliteEvents(tmp_path / "events"))
    asyncio.run(histories.append([Event("ann", f"{number}", number) for number in range(arrived)]))
    (found,) = asyncio.run(histories.read(["ann"]))
    assert found is not None
    assert found.user == 1
    later = [f"{number}" for number in range(arrived)]
    assert found.items == (["id-1", "id-2", "id-3"][3 - of_base :] + later)[-MAX_HISTORY:]
    histories.close()


def test_without_a_store_the_base_answers(tmp_path: Path) -> None:
    source = HistorySource()
    histories = source.open(write_artifact(tmp_path / "artifact", histories=True))
    assert asyncio.run(histories.read(["ann", "eve"])) == [History(["id-3", "id-4", "id-5"], 1), None]
    assert not histories.takes_events
    with pytest.raises(RuntimeError, match="no store"):
        asyncio.run(histories.append([Event("ann", "a", 1)]))
    histories.close()


def test_a_store_that_never_answers_does_not_hold_its_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.histories.histories.DEADLINE_S", 0.05)
    deaf: EventStore = Deaf()
    histories = Histories(BaseHistories.empty(), deaf)

    async def ask() -> None:
        for call in (histories.read(["ann"]), histories.append([Event("ann", "a", 1)]), histories.check()):
            with pytest.raises(StoreDownError, match="no answer within"):
                await call

    asyncio.run(ask())
    deaf.close()
    histories.close()


def test_a_password_is_in_no_representation() -> None:
    source = HistorySource(events="redis://ann:secret@127.0.0.1:1/0?password=secret")
    assert "secret" not in repr(source)
    assert source.place == "redis://127.0.0.1:1/0"
    assert HistorySource(events="/some/folder").place == "/some/folder"
    assert HistorySource().place == ""
