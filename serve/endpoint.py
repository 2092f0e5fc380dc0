"""The Ray Serve deployment: one replica holds one loaded artifact and answers requests in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve.config import BackpressureConfig

from components.recommender import Query, Recommendation
from serve.app import create_app
from serve.backend import as_served
from serve.health import PERIOD_S, TIMEOUT_S, rank_once
from serve.histories.source import NO_EVENTS, HistorySource
from serve.item_actor import growing
from serve.item_source import ItemKeeping
from serve.loading import load
from serve.logs import open_log
from serve.models import Models, Served
from serve.record import Record, current
from serve.release.follower import Follower
from serve.release.line import Line
from serve.release.trial import Trial, deadline_of, guarded, nothing_in_any
from serve.settings import Settings
from serve.workers import Workers

APP_NAME: Final = "distilrec"
MAX_BATCH_SIZE: Final = 32
GIVE_UP_S: Final = 1.0  # after the last request of a batch was told that its time is up
Asked = tuple[Served, Query, Record]
BATCH_WAIT_S: Final = 0.001  # while one batch is answered the next one gathers, so waiting longer gains nothing


@ray_serve.deployment(
    name="endpoint",
    max_ongoing_requests=1024,  # above Settings.max_in_flight: the application sheds first, with its own error body
    max_queued_requests=1024,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    health_check_period_s=PERIOD_S,
    health_check_timeout_s=TIMEOUT_S,
    graceful_shutdown_wait_loop_s=0.5,
    graceful_shutdown_timeout_s=10,
    max_constructor_retry_count=1,  # a corrupt artifact does not heal
    ray_actor_options={"num_cpus": 1},
)
@ray_serve.ingress()
class Endpoint:
    """One replica.

    Args:
        artifact: folder of the artifact, readable on every node that runs a replica.
        settings: limits and access.
        line: folder of a line of releases to follow; `artifact` is not read for a model then.
        histories: where those of users are.
        keeping: where new items are kept and read; None where none are taken.
    """

    def __init__(
        self,
        artifact: str,
        settings: dict[str, Any],
        line: str | None = None,
        histories: HistorySource = NO_EVENTS,
        keeping: ItemKeeping | None = None,
    ) -> None:
        self.histories = histories.open(Path(artifact))
        torch.set_num_threads(1)  # replicas are the parallelism, and answers must not depend on the number of cores
        self.settings = Settings.model_validate(settings)
        open_log(self.settings, _replica_name())
        self.workers = Workers()
        self._apart: WeakKeyDictionary[Served, Workers] = WeakKeyDictionary()  # threads of those who are no incumbent
        self._publish: Callable[[], None] | None = None  # until the application is built
        self.growing = growing(keeping) if keeping else None
        loading = partial(load, retrieval=self.settings.retrieval, min_recall=self.settings.min_recall)
        self._fixed = Models() if line else Models(as_served(loading(artifact)))
        self.follower = Follower(Line(Path(line)), _replica_name(), loading, self._grow).start() if line else None

    def __del__(self) -> None:
        if hasattr(self, "histories"):  # the constructor may have failed
            self.histories.close()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP application of this replica; Ray Serve calls it after the constructor."""
        app = create_app(self, self.settings, _replica_name(), self.histories)
        self._publish = app.state.telemetry.publish
        return app

    @property
    def models(self) -> Models:
        """Who answers at this moment."""
        return self.follower.models if self.follower else self._fixed

    def _grow(self, model: Served) -> None:
        if self.growing is not None:
            self.growing.look([model])

    async def answer(self, model: Served, query: Query) -> Recommendation:
        """Answer one query together with those of other requests."""
        trial, incumbent = self._record([query]), self.models.incumbent
        batched = self._batched if model is incumbent else self._batched_apart
        asked = (model, query, current())
        return await guarded(
            trial, model, incumbent, lambda: batched(asked), lambda answer: nothing_in_any([answer], [query])
        )

    @ray_serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _batched(self, asked: list[Asked]) -> list[Recommendation]:
        return await self._together(asked, self.settings.timeout_s + GIVE_UP_S)

    @ray_serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _batched_apart(self, asked: list[Asked]) -> list[Recommendation]:
        """Of models that are not the incumbent, so that a slow one holds up nobody."""
        return await self._together(asked, deadline_of(self._trial))

    async def _together(self, asked: list[Asked], deadline_s: float) -> list[Recommendation]:
        """Nobody waits longer than `deadline_s`: a batch that is stuck must not keep the next one from its turn."""
        found: dict[int, Recommendation] = {}
        started = time.perf_counter()
        for model in {id(model): model for model, _, _ in asked}.values():
            places = [place for place, (other, _, _) in enumerate(asked) if other is model]
            async with asyncio.timeout(deadline_s):
                answers = await self._ask(model, [asked[place][1] for place in places])
            found |= dict(zip(places, answers, strict=True))
        for _, _, record in asked:
            record.model_s, record.batch_size = time.perf_counter() - started, len(asked)
        return [found[place] for place in range(len(asked))]

    async def answer_all(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        """Answer the queries of one request."""
        trial = self._record(queries)
        current().batch_size += len(queries)
        return await guarded(
            trial,
            model,
            self.models.incumbent,
            lambda: self._ask(model, queries),
            lambda found: nothing_in_any(found, queries),
        )

    def refused(self, model: Served, reason: str) -> None:
        """See `Backend.refused`."""
        if self._trial is not None:
            self._trial.live(model, 0.0, reason)

    async def _ask(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        """In a thread where that takes long, so that probes are answered meanwhile; who is no incumbent has threads of
        its own, for it may be stuck."""
        workers = self.workers
        if model is not self.models.incumbent:
            workers = self._apart.setdefault(model, Workers(trusting=False))
        return await workers.rank(model, queries)

    @property
    def _trial(self) -> Trial | None:
        """The one that runs."""
        return self.follower.trial if self.follower else None

    def _record(self, queries: Sequence[Query]) -> Trial | None:
        """Keep the queries for trials; returns the one that runs."""
        if self.follower is not None:
            for query in queries:
                self.follower.recorder.add(query)
        return self._trial

    async def check_health(self) -> None:
        """Rank once, and show the metrics to the other replicas.

        Raises:
            RuntimeError: no answer in time; Ray Serve replaces a replica that fails three times in a row.
        """
        await rank_once(self.models, self._ask)
        if self._publish:
            self._publish()


def _replica_name() -> str:
    return str(ray_serve.get_replica_context().replica_id.unique_id)


def build(
    artifact: str,
    settings: Settings,
    replicas: int,
    line: str | None = None,
    histories: HistorySource = NO_EVENTS,
    keeping: ItemKeeping | None = None,
    resources: Mapping[str, float] | None = None,
) -> Any:
    """The Ray Serve application for an artifact, or for a line of releases; `resources` say where replicas run."""
    deployment: Any = Endpoint  # the decorator is not typed
    place = {"num_cpus": 1, "resources": dict(resources or {})}
    placed = deployment.options(num_replicas=replicas, ray_actor_options=place)
    return placed.bind(artifact, settings.model_dump(), line, histories, keeping)
