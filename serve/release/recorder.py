"""The latest requests of a replica, what a candidate is tried on. They stay in memory, nothing of them is written."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import Final

from components.recommender import Query

KEPT: Final = 1000


class Recorder:
    """Keeps the latest queries that name a history. Any thread may use it."""

    def __init__(self, kept: int = KEPT) -> None:
        self._queries: deque[tuple[int, Query]] = deque(maxlen=kept)
        self._lock = threading.Lock()
        self._count = 0

    def add(self, query: Query) -> None:
        """Keep a query, of its filter the attributes alone. Without a history it tells nothing."""
        if not query.history:
            return
        attributes = query.filter.without_values() if query.filter is not None else None
        with self._lock:
            self._count += 1
            self._queries.append((self._count, replace(query, filter=attributes, explain=False)))

    def after(self, number: int) -> tuple[int, Query] | None:
        """The oldest kept query whose number is above `number`; None where all were seen."""
        with self._lock:
            if not self._queries or self._queries[-1][0] <= number:
                return None
            first = self._queries[0][0]
            return self._queries[max(0, number + 1 - first)]
