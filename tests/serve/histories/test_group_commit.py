from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.histories.group_commit import MOST, GroupCommit
from serve.histories.store import Event, StoreDownError


def test_what_gathers_while_one_is_written_is_written_together() -> None:
    groups: list[int] = []
    first, go = threading.Event(), threading.Event()

    def write(appends: Sequence[Sequence[Event]]) -> list[int]:
        groups.append(len(appends))
        first.set()
        assert go.wait(20)
        return [len(events) for events in appends]

    writer = GroupCommit(write, lambda: None)
    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(writer.append, [Event("ann", "a", 1)])]
        assert first.wait(20)
        waiting += [pool.submit(writer.append, [Event("ann", "a", 1)] * number) for number in range(8)]
        while writer._jobs.qsize() < 8:
            assert not waiting[0].done()
        go.set()
        assert [future.result(20) for future in waiting] == [1, *range(8)]
    writer.close()
    assert groups == [1, 8]
    assert MOST >= 8


def test_a_failure_reaches_all_of_its_group_and_no_other() -> None:
    def write(appends: Sequence[Sequence[Event]]) -> list[int]:
        if any(not events for events in appends):
            raise StoreDownError("full")
        return [len(events) for events in appends]

    writer = GroupCommit(write, lambda: None)
    with pytest.raises(StoreDownError, match="full"):
        writer.append([])
    assert writer.append([Event("ann", "a", 1)]) == 1
    writer.close()


def test_the_end_writes_what_waits_and_lets_nothing_in_behind() -> None:
    ended = threading.Event()
    writer = GroupCommit(lambda appends: [len(events) for events in appends], ended.set)
    writer.close()
    writer.close()
    assert ended.is_set()
    with pytest.raises(StoreDownError, match="closed"):
        writer.append([])
