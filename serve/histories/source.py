"""Where a replica finds histories: what the command tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serve.histories.base import BaseHistories
from serve.histories.histories import Histories
from serve.histories.redis_events import SCHEMES, RedisEvents, masked
from serve.histories.sqlite_events import SqliteEvents
from serve.histories.store import EventStore


@dataclass(frozen=True)
class HistorySource:
    """The places of histories.

    Attributes:
        prepared: a prepared set whose sequences are the base; without one the artifact's own histories are.
        events: a folder, or the address of a Redis; that may hold a password and is in no representation. None keeps
            no events.
    """

    prepared: str | None = None
    events: str | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """Where events are kept, as it may be shown; empty where they are not."""
        events = self.events or ""
        return masked(events) if is_redis(events) else events

    def base(self, artifact: Path) -> BaseHistories:
        """Read the base histories.

        Raises:
            ArtifactError: they are damaged.
        """
        return BaseHistories.of_prepared(Path(self.prepared)) if self.prepared else BaseHistories.of_artifact(artifact)

    def open_events(self) -> EventStore | None:
        """Open the store of events.

        Raises:
            UserError: its folder cannot be written, or its address cannot be understood.
            ArtifactError: what is there is damaged, or of another format version.
        """
        if self.events is None:
            return None
        return RedisEvents(self.events) if is_redis(self.events) else SqliteEvents(self.events)

    def open(self, artifact: Path) -> Histories:
        """Both; raises what they raise."""
        return Histories(self.base(artifact), self.open_events())


NO_EVENTS: Final = HistorySource()


def is_redis(place: str) -> bool:
    """Whether `place` is the address of a Redis and not a folder.

    >>> [is_redis(place) for place in ("redis://h/0", "rediss://h/0", "runs/redis")]
    [True, True, False]
    """
    return place.partition("://")[0] in SCHEMES and "://" in place
