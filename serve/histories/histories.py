"""Histories by user id, as the routes ask for them: the run's own, then what arrived since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from serve.histories.base import BaseHistories, History
from serve.histories.store import Event, EventStore, StoreDownError
from serve.settings import MAX_HISTORY

THREADS: Final = 32  # of the store alone, idle ones cost nothing: who waits for it keeps no thread from a model
DEADLINE_S: Final = 8.0  # above the stores' own limits

Answer = TypeVar("Answer")


class Histories:
    """The base histories and a store of events behind one asynchronous face.

    Events stand behind the base, among themselves by timestamp, then by arrival.

    Args:
        base: what the run knows.
        events: what arrived; None where none are kept.
    """

    def __init__(self, base: BaseHistories, events: EventStore | None = None) -> None:
        self.base, self._events = base, events
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="histories")

    @property
    def takes_events(self) -> bool:
        """Whether `append` has a place to keep them."""
        return self._events is not None

    @property
    def knows_users(self) -> bool:
        """Whether any user can have a history here."""
        return self.takes_events or len(self.base) > 0

    async def read(self, user_ids: Sequence[str]) -> list[History | None]:
        """The latest `MAX_HISTORY` items of each user; None for unknown ones.

        Raises:
            StoreDownError: the store of events does not answer. The base alone would be a history with a hole.
        """
        events = self._events
        if events is None:
            return [self.base.find(user_id, MAX_HISTORY) for user_id in user_ids]
        return await self._ask(lambda: self._joined(user_ids, events.read(user_ids, MAX_HISTORY)))

    def _joined(self, user_ids: Sequence[str], later: Sequence[list[str]]) -> list[History | None]:
        return [self._join(user_id, items) for user_id, items in zip(user_ids, later, strict=True)]

    def _join(self, user_id: str, later: list[str]) -> History | None:
        base = self.base.find(user_id, MAX_HISTORY - len(later))
        if base is None:
            return History(later) if later else None
        return History(base.items + later, base.user)

    async def append(self, events: Sequence[Event]) -> int:
        """Keep events; returns the number of new ones when they are durable, see `EventStore.append`.

        Raises:
            StoreDownError: the store does not answer.
            RuntimeError: there is no store; ask `takes_events` first.
        """
        store = self._events
        if store is None:
            raise RuntimeError("no store of events is open")
        return await self._ask(lambda: store.append(events))

    async def check(self) -> None:
        """Raise StoreDownError unless the store, if any, answers."""
        if self._events is not None:
            await self._ask(self._events.check)

    async def _ask(self, call: Callable[[], Answer]) -> Answer:
        waiting = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.wait_for(waiting, DEADLINE_S)
        except TimeoutError as error:
            raise StoreDownError(f"the event store gave no answer within {DEADLINE_S:g} s") from error

    def close(self) -> None:
        """Finish what is being written and let go of the store."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._events is not None:
            self._events.close()
