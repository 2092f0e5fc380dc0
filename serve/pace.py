"""What rankings cost a model, to tell which are so short that they need no thread."""

from __future__ import annotations

from typing import Final

SHORT_S: Final = 0.02  # a replica's other requests may wait so long for one ranking
NEW: Final = 0.125  # weight of the newest ranking
CROWDED: Final = 8.0  # a thread that shares the interpreter with others takes up to so many times as long


class Pace:
    """Seconds that a model takes for batches, by their size in powers of two.

    A ranking is a few hundred small operations, each of which gives the interpreter away and waits for it again: beside
    a thread that reads requests it takes several times as long, and both lose. Short rankings are therefore made where
    requests are read, one batch after the other; what is long or not known yet gets a thread.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def is_short(self, queries: int) -> bool:
        """Whether a batch of so many queries is known to be short."""
        return self._seconds.get(queries.bit_length(), SHORT_S) < SHORT_S

    def note(self, queries: int, wall_s: float, cpu_s: float, crowded: bool) -> None:
        """A batch of so many queries took so long; `crowded`: beside other threads, whose time is part of `wall_s`."""
        took = max(cpu_s, wall_s / CROWDED) if crowded else wall_s
        size = queries.bit_length()
        known = self._seconds.get(size, took)
        self._seconds[size] = known + NEW * (took - known)
