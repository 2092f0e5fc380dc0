"""What a store of events promises, whichever keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from components.errors import StorageError

FORMAT: Final = 1  # of what a store keeps; another number is refused, never guessed at


class StoreDownError(StorageError):
    """The store cannot be reached or cannot write now; the same call may succeed later."""


@dataclass(frozen=True)
class Event:
    """One interaction.

    Attributes:
        user_id: whose.
        item_id: with what; no catalog needs to know it.
        timestamp: when, microseconds since the epoch.
        event_id: what makes a repetition of the event one event, within its user; None where every one counts.
        value: such as a rating; kept, not read by any model.
    """

    user_id: str
    item_id: str
    timestamp: int
    event_id: str | None = None
    value: float | None = None


class EventStore(Protocol):
    """Keeps events. Methods block and may be called by several threads at once."""

    def read(self, user_ids: Sequence[str], limit: int) -> list[list[str]]:
        """The item ids of the latest `limit` events of each user, by timestamp, then by arrival; oldest first.

        Raises:
            StoreDownError: the store does not answer.
        """
        ...

    def append(self, events: Sequence[Event]) -> int:
        """Keep events, all or none, and return how many are new, when they are durable.

        Those whose user has an event of the same `event_id` already are left out; the first one stays.

        Raises:
            StoreDownError: the store does not answer, so that it is unknown whether it kept them.
        """
        ...

    def check(self) -> None:
        """Raise StoreDownError unless the store answers."""
        ...

    def close(self) -> None:
        """Let go of files, threads and connections; no other method may be called behind it."""
        ...
