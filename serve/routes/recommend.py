"""``POST /v1/recommend`` and ``/v1/recommend:batch``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from fastapi import APIRouter

from components.recommender import Query, Recommendation
from serve.backend import Backend
from serve.errors import ApiError
from serve.histories.base import History, fingerprint_of
from serve.histories.histories import Histories
from serve.histories.store import StoreDownError
from serve.models import Models, Served
from serve.record import current
from serve.release.trial import CandidateFailedError
from serve.routes.common import ERRORS, JsonAnswer, store_down
from serve.schema import BatchRequest, BatchResponse, RecommendRequest, RecommendResponse
from serve.telemetry import Telemetry

Answer = TypeVar("Answer")


def router(backend: Backend, telemetry: Telemetry, histories: Histories) -> APIRouter:
    """The two routes."""
    routes = APIRouter(tags=["recommend"], responses=ERRORS)

    @routes.post("/v1/recommend", response_model=RecommendResponse)
    async def recommend(request: RecommendRequest) -> JsonAnswer:
        """The best items after a history, or for a user whose history is known here."""
        models = backend.models
        model = chosen(request, models, backend)
        users = await users_of([request], histories, telemetry)
        answer, model = await answered(
            lambda model: backend.answer(model, to_query(request, model, users)), model, models
        )
        return JsonAnswer(shown(answer, model, telemetry))

    @routes.post("/v1/recommend:batch", response_model=BatchResponse)
    async def recommend_batch(request: BatchRequest) -> JsonAnswer:
        """Several questions in one call; each answer is the one that the question alone would get."""
        models = backend.models
        places: dict[str, list[int]] = {}
        for place, one in enumerate(request.requests):
            places.setdefault(chosen(one, models, backend, f"requests.{place}.").version, []).append(place)
        users = await users_of(request.requests, histories, telemetry)
        results: list[dict[str, Any]] = [{} for _ in request.requests]
        for version, part in places.items():
            asked = {f"requests.{place}.": request.requests[place] for place in part}

            def ask(model: Served, asked: dict[str, RecommendRequest] = asked) -> Awaitable[list[Recommendation]]:
                return backend.answer_all(model, queries_of(asked, model, users))

            answers, model = await answered(ask, models.named(version), models)
            for place, answer in zip(part, answers, strict=True):
                results[place] = shown(answer, model, telemetry)
        return JsonAnswer({"results": results})

    return routes


async def answered(ask: Callable[[Served], Awaitable[Answer]], model: Served, models: Models) -> tuple[Answer, Served]:
    """The answer of `model`, or of the incumbent where that one fails, and who gave it."""
    try:
        with current().asking(model.version):
            return await ask(model), model
    except CandidateFailedError:
        incumbent = models.pick_incumbent()
    with current().asking(incumbent.version):
        return await ask(incumbent), incumbent


def chosen(request: RecommendRequest, models: Models, backend: Backend, field: str = "") -> Served:
    """The model that answers: the one that is named, else by user, else by the first item of the history, which stays
    the same while a visitor's history grows. A candidate that cannot take the request, as the incumbent can, is left
    out, and `backend` is told.

    Raises:
        ApiError: 503, nothing is loaded; 422, no such model, or a filter that the incumbent cannot take either.
    """
    model, incumbent = models.pick(request.user_id or "".join((request.history or [])[:1])), models.pick_incumbent()
    if request.model is not None:
        try:
            return models.named(request.model)
        except ApiError as error:
            raise ApiError(422, error.message, f"{field}model") from error
    if model is incumbent or request.filter is None:
        return model
    try:
        request.filter.to_filter(model.recommender.attributes)
    except ApiError as error:
        request.filter.to_filter(incumbent.recommender.attributes, field)
        backend.refused(model, error.message)
        return incumbent
    return model


@dataclass(frozen=True)
class Users:
    """The users that some requests name.

    Attributes:
        histories: by user id; unknown users are absent.
        fingerprint: of the data that user numbers belong to.
    """

    histories: Mapping[str, History]
    fingerprint: str


async def users_of(requests: Sequence[RecommendRequest], histories: Histories, telemetry: Telemetry) -> Users:
    """Read what is known of the users that `requests` name.

    Raises:
        ApiError: 503, the store is down.
    """
    user_ids = list(dict.fromkeys(request.user_id for request in requests if request.user_id is not None))
    if not user_ids:
        return Users({}, histories.base.fingerprint)
    try:
        with telemetry.asking_store("events", "read") if histories.takes_events else nullcontext():
            found = await histories.read(user_ids)
    except StoreDownError as error:
        message = "the event store is down, so users' histories are unknown; send `history`, or try again in a moment"
        raise store_down(error, message) from error
    known = {user_id: history for user_id, history in zip(user_ids, found, strict=True) if history is not None}
    return Users(known, histories.base.fingerprint)


def to_query(request: RecommendRequest, model: Served, users: Users, field: str = "") -> Query:
    """The recommender's query for a request; `field` leads to it in error answers.

    A user's number is for models of the same data: elsewhere it is somebody else's.

    Raises:
        ApiError: 422, the model's catalogue lacks an attribute of the filter.
    """
    wanted = None
    if request.filter is not None:
        wanted = request.filter.to_filter(model.recommender.attributes, field)
    if request.history is not None:
        return Query(request.history, request.k, request.exclude_seen, filter=wanted, explain=request.explain)
    history = users.histories.get(request.user_id or "", History([]))
    user = history.user if fingerprint_of(model.recommender.manifest) == users.fingerprint else 0
    return Query(history.items, request.k, request.exclude_seen, user, wanted, request.explain)


def queries_of(requests: Mapping[str, RecommendRequest], model: Served, users: Users) -> list[Query]:
    """The queries for some requests of a batch, by the field that leads to each; see `to_query`."""
    return [to_query(request, model, users, field) for field, request in requests.items()]


def shown(answer: Recommendation, model: Served, telemetry: Telemetry) -> dict[str, Any]:
    """The body of an answer."""
    telemetry.answered(answer, model.version)
    items: list[dict[str, Any]] = [
        {"item_id": item.item_id, "title": item.title, "score": item.score} for item in answer.items
    ]
    for body, item in zip(items, answer.items, strict=True):
        if item.because is not None:
            body["because"] = [asdict(cause) for cause in item.because]
    return {"items": items, "model": model.name, "unknown_items": answer.unknown_items, "fallback": answer.fallback}
