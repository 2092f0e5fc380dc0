"""How many requests a replica lets in: as many as it can answer soon, by what it was seen to answer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from serve.settings import Settings

MIN_LIMIT: Final = 32  # enough to fill batches and to see what the replica can do
BURST_S: Final = 0.5  # how long a queue may stand before it is cut: short bursts are answered, not refused
CALM_S: Final = 2.0  # without a refusal, after which a burst may be one again and not more of the same overload
WINDOW: Final = 64  # answers per measurement


class Admission:
    """Counts requests, measures the rate of answers while there is always work, and says when the queue stands.

    With N requests at work and R answers per second each waits N / R seconds (Little's law), so `limit` is R times the
    wait that is wanted. A longer queue is let be for half a second; then requests beyond `limit` are refused, at once
    and as long as the overload lasts: a queue that were let grow again whenever it is short would make every wait long.

    Args:
        settings: `max_in_flight` is the limit for a burst, `target_wait_s` the wait that is wanted under load.
        clock: seconds that never go back.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.perf_counter) -> None:
        self._settings, self._clock = settings, clock
        self.in_flight = 0  # all that arrived and are not answered
        self.working = 0  # those of them whose body is here: slow senders take no capacity
        self.limit = settings.max_in_flight
        self._rate = 0.0
        self._answers, self._busy_s = 0, 0.0
        self._left = 0.0
        self._short = clock()  # when the queue was last short
        self._refused = -math.inf  # when a request was last refused for the queue's length

    def full(self) -> bool:
        """Whether one more request has to be refused."""
        if self.in_flight >= self._settings.max_in_flight:
            return True
        now = self._clock()
        if self.working <= self.limit // 2:
            self._short = now
        overloaded = now - self._refused < CALM_S or now - self._short > BURST_S
        if self.working < self.limit or not overloaded:
            return False
        self._refused = now
        return True

    def enter(self) -> None:
        """A request was let in."""
        self.in_flight += 1

    def start(self) -> None:
        """Its body is here."""
        self.working += 1
        if self.working == 1:
            self._left = self._clock()

    def leave(self, started: bool) -> None:
        """It is answered, or gone; `started` says whether its body had come."""
        self.in_flight -= 1
        if not started:
            return
        self.working -= 1
        now = self._clock()
        self._busy_s += now - self._left
        self._left = now
        self._answers += 1
        if self._answers >= WINDOW:
            rate = self._answers / max(self._busy_s, 1e-6)
            self._rate = (self._rate + rate) / 2 if self._rate else rate
            self._answers, self._busy_s = 0, 0.0
            wanted = max(MIN_LIMIT, round(self._rate * self._settings.target_wait_s))
            self.limit = min(self._settings.max_in_flight, wanted)
