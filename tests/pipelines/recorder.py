"""A progress that tests can ask."""

from __future__ import annotations


class Recorder:
    """Remembers what a stage told the person who waits."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.unit = ""
        self.done: list[int] = []  # what was done before, then every advance
        self.shown: dict[str, float | str] = {}
        self.notes: list[str] = []
        self.said: list[str] = []

    def start(self, total: int | None, unit: str, done: int = 0) -> None:
        self.total, self.unit, self.done = total, unit, [done]

    def advance(self, n: int = 1, **shown: float | str) -> None:
        self.done.append(n)
        self.shown |= shown

    def note(self, text: str) -> None:
        self.notes.append(text)

    def say(self, text: str) -> None:
        self.said.append(text)
