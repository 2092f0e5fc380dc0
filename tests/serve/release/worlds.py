"""Lines of releases with models that are good, bad, broken or slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from components.recommender import Query, Recommendation, Recommender, ScoredItem
from serve.models import Served
from serve.release.line import Line
from tests.tiny_artifact import item_id, write_artifact

ITEMS = 60


def make_line(folder: Path, versions: int = 1) -> Line:
    """A line with some versions of random models; the first one serves."""
    line = Line(folder / "releases" / "shop")
    for seed in range(versions):
        line.registry.put(line.name, write_artifact(folder / f"artifact-{seed}", seed=seed), promote=seed == 0)
    return line


class Scripted(Recommender):
    """Ranks the items after the last one of the history, in turn; without an artifact."""

    def __init__(self, shift: int = 1, *, unknown: Sequence[str] = (), seconds: float = 0.0, fails: str = "") -> None:
        self.shift, self.seconds, self.fails, self._unknown = shift, seconds, fails, set(unknown)
        self.item_ids = [item_id(number) for number in range(1, ITEMS + 1)]
        self.manifest = {"data_fingerprint": "shop"}
        self.wait: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        return f"scripted-{self.shift}@0"

    def knows(self, item: str) -> bool:
        return item not in self._unknown

    def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
        if self.fails:
            raise RuntimeError(self.fails)
        if self.seconds:
            self.wait(self.seconds)
        return [self._one(query) for query in queries]

    def _one(self, query: Query) -> Recommendation:
        unknown = [item for item in query.history if not self.knows(item)]
        last = int(query.history[-1].removeprefix("id-")) if query.history else 0
        numbers = [(last + self.shift + place - 1) % ITEMS + 1 for place in range(query.k)]
        return Recommendation([ScoredItem(item_id(n), -float(place)) for place, n in enumerate(numbers)], unknown)


class Empty(Scripted):
    """Every score is NaN, so that nothing is ranked."""

    def _one(self, query: Query) -> Recommendation:
        return Recommendation([], [])


def served(recommender: Recommender, version: str = "v0001") -> Served:
    return Served(version, recommender)


def walk(number: int, length: int = 4) -> Query:
    """A visitor who takes items one after the other."""
    return Query([item_id((number + place) % ITEMS + 1) for place in range(length)], k=10)
