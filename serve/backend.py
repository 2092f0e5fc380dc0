"""What the routes ask for answers: models in this process, or those of a Ray Serve replica that batches requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from components.recommender import Query, Recommendation, Recommender
from serve.growing import Growing
from serve.models import Models, Served
from serve.record import current
from serve.workers import Workers


class Backend(Protocol):
    """Loaded models and a way to ask them.

    Attributes:
        growing: takes items that are added while serving; None where they cannot be kept.
    """

    growing: Growing | None

    @property
    def models(self) -> Models:
        """Who answers at this moment; read it once per request."""
        ...

    async def answer(self, model: Served, query: Query) -> Recommendation:
        """Answer one query, possibly together with those of other requests."""
        ...

    async def answer_all(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        """Answer the queries of one request."""
        ...

    def refused(self, model: Served, reason: str) -> None:
        """Note that `model`, which is not the incumbent, cannot take a request that the incumbent can."""
        ...


class LocalBackend:
    """Answers in a thread of this process, without batching.

    Args:
        recommender: None while it loads.
        growing: where items go that are added while serving.
    """

    def __init__(self, recommender: Recommender | None, growing: Growing | None = None) -> None:
        self.models = Models(as_served(recommender) if recommender else None)
        self.workers = Workers()
        self.growing = growing

    async def answer(self, model: Served, query: Query) -> Recommendation:
        """Answer one query."""
        return (await self.answer_all(model, [query]))[0]

    async def answer_all(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        """Answer several queries."""
        current().batch_size += len(queries)
        return await self.workers.rank(model, queries)

    def refused(self, model: Served, reason: str) -> None:
        """Nobody judges models here."""


def as_served(recommender: Recommender, version: str = "") -> Served:
    """A recommender under its release's version, or under the hash of its tensors."""
    return Served(version or recommender.name.rpartition("@")[2], recommender)
