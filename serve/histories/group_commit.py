"""Appends that arrive together share one transaction, so that a disk's sync is paid once for all of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from serve.histories.store import Event, StoreDownError

MOST: Final = 256  # appends of one transaction

Write = Callable[[Sequence[Sequence[Event]]], list[int]]
_Job = tuple[Sequence[Event], "Future[int]"]


class GroupCommit:
    """A thread that writes what has gathered while it wrote.

    Args:
        write: stores the events of several appends in one transaction and returns the number of new ones of each; what
            it raises, all of these appends raise. It runs in the thread alone.
        done: runs in the thread at the end.
    """

    def __init__(self, write: Write, done: Callable[[], None]) -> None:
        self._write, self._done = write, done
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # nothing may stand behind the end in the queue: nobody would answer it
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="history-writer", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> int:
        """Store `events` with those of other callers; returns when they are stored.

        Raises:
            StoreDownError: it is closed.
        """
        future: Future[int] = Future()
        with self._lock:
            if self._closed:
                raise StoreDownError("the event store is closed")
            self._jobs.put((events, future))
        return future.result()

    def close(self) -> None:
        """Write what waits, then end."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (group := self._next()) is not None:
                self._commit(group)
        finally:
            self._done()

    def _next(self) -> list[_Job] | None:
        """What waits, at least one append; None at the end."""
        job = self._jobs.get()
        if job is None:
            return None
        group = [job]
        while len(group) < MOST and not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)  # the end comes behind this group
                break
            group.append(job)
        return group

    def _commit(self, group: list[_Job]) -> None:
        try:
            counts = self._write([events for events, _ in group])
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, whatever it is; the thread lives on
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), count in zip(group, counts, strict=True):
                future.set_result(count)
