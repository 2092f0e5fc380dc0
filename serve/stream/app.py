"""The HTTP application of a streaming model, without Ray."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import torch
from fastapi import APIRouter, FastAPI
from fastapi.responses import Response

from serve import errors
from serve.admission import Admission
from serve.errors import ApiError
from serve.guard import Guard
from serve.histories.schema import EventsRequest, EventsResponse
from serve.histories.store import Event, StoreDownError
from serve.keys import Keys
from serve.routes.common import ERRORS, store_down
from serve.settings import Settings
from serve.stream.learning import Learning, Version
from serve.stream.schema import (
    PredictRequest,
    PredictResponse,
    StreamItem,
    StreamModelResponse,
    StreamRecommendRequest,
    StreamRecommendResponse,
)
from serve.telemetry import Telemetry
from serve.workers import THREADS


def create_stream_app(learning: Learning, settings: Settings, replica: str = "local") -> FastAPI:
    """Build the application.

    Args:
        learning: what answers and learns.
        settings: limits and access.
        replica: name of this process in the metrics.
    """
    app = FastAPI(
        title="distilrec",
        description="Recommendations from a model that learns from ratings.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    admission = Admission(settings)
    telemetry = Telemetry(replica, admission=admission)
    errors.install(app)
    routes = _routes(learning, telemetry)
    app.include_router(routes)
    paths = frozenset(str(getattr(route, "path", "")) for route in routes.routes)
    app.add_middleware(
        Guard, settings=settings, keys=Keys(settings), telemetry=telemetry, admission=admission, paths=paths
    )
    return app


def _routes(learning: Learning, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter(responses=ERRORS)
    answers, writers = (ThreadPoolExecutor(THREADS) for _ in range(2))  # appends wait for the disk
    loop = asyncio.get_running_loop

    @routes.post("/v1/recommend", response_model=StreamRecommendResponse)
    async def recommend(request: StreamRecommendRequest) -> StreamRecommendResponse:
        """The items that the user would rate best."""
        return await loop().run_in_executor(answers, _ranked, learning, learning.version, request)

    @routes.post("/v1/predict", response_model=PredictResponse)
    async def predict(request: PredictRequest) -> PredictResponse:
        """How the user would rate the item."""
        version = learning.version
        user, item = learning.users.find(request.user_id), learning.items.find(request.item_id)
        known = user is not None and item is not None and user < version.users and item < version.items
        score = version.copy.score(user, item) if known and user is not None and item is not None else None
        return PredictResponse(score=score, model=version.name, learned_events=version.arrival)

    @routes.post("/v1/events", response_model=EventsResponse)
    async def events(request: EventsRequest) -> EventsResponse:
        """Ratings, in `value`. The answer comes when they are durable; the model learns them within a moment."""
        asked = request.to_events()
        for place, event in enumerate(asked):
            _check(learning, event, f"events.{place}." if request.events else "")
        unknown = [event.item_id for event in asked if learning.items.find(event.item_id) is None]
        try:
            stored = await loop().run_in_executor(writers, learning.events.append, asked)
        except StoreDownError as error:
            raise store_down(error, "the event store is down; send them again, with an `event_id` each") from error
        return EventsResponse(stored=stored, duplicates=len(asked) - stored, unknown_items=list(dict.fromkeys(unknown)))

    @routes.get("/v1/model", response_model=StreamModelResponse)
    async def model() -> StreamModelResponse:
        """What serves, and how it does."""
        return StreamModelResponse.model_validate(learning.status())

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "alive"}

    @routes.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Whether the model is loaded."""
        return {"status": "ready", "model": learning.version.name}

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and latencies in Prometheus text."""
        return Response(telemetry.text(), headers={"Content-Type": telemetry.content_type})

    return routes


def _check(learning: Learning, event: Event, place: str) -> None:
    """Refuse an event that cannot be learned, before it is stored."""
    low, high = learning.ratings.scale
    if event.value is None:
        raise ApiError(422, "a rating is needed; give it as `value`", f"{place}value")
    if not low <= event.value <= high:
        raise ApiError(422, f"expected a rating from {low:g} to {high:g}, got {event.value:g}", f"{place}value")
    full = learning.full(event)
    if full:
        limit = learning.learner.config.max_entities
        field = "user_id" if full == "users" else "item_id"
        message = f"the model takes {limit:,} {full} and has them; raise stream.max_entities and stream anew"
        raise ApiError(409, message, f"{place}{field}")


def _ranked(learning: Learning, version: Version, request: StreamRecommendRequest) -> StreamRecommendResponse:
    user = learning.users.find(request.user_id)
    known = user is not None and user < version.users
    if known and user is not None:
        scores = version.copy.scores(user)
    else:
        counts = learning.learner.frequencies[1].counts[: version.items].float()
        scores = counts / counts.sum().clamp(min=1)
    if request.exclude_seen and known and user is not None:
        seen = [item for item in learning.seen.get(user, set()).copy() if item < version.items]
        scores = scores.clone()
        scores[seen] = -torch.inf
    best = torch.topk(scores, min(request.k, len(scores)))
    found = [(item, score) for item, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    items = [
        StreamItem(item_id=learning.items.ids[item], title=learning.titles.get(learning.items.ids[item]), score=score)
        for item, score in found
        if score != -torch.inf
    ]
    return StreamRecommendResponse(
        items=items, model=version.name, learned_events=version.arrival, fallback=None if known else "popularity"
    )
