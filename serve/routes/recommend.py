"""``POST /v1/recommend`` and ``/v1/recommend:batch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from components.errors import DataError
from components.recommender import Query, Recommendation
from serve.backend import Backend
from serve.errors import ApiError
from serve.models import Models, Served
from serve.release.trial import CandidateFailedError
from serve.routes.common import ERRORS, JsonAnswer
from serve.schema import BatchRequest, BatchResponse, RecommendRequest, RecommendResponse
from serve.telemetry import Telemetry


def router(backend: Backend, telemetry: Telemetry) -> APIRouter:
    """The two routes."""
    routes = APIRouter(tags=["recommend"], responses=ERRORS)

    @routes.post("/v1/recommend", response_model=RecommendResponse)
    async def recommend(request: RecommendRequest) -> JsonAnswer:
        """The best items after a history, or for a user whose history the artifact carries."""
        models = backend.models
        model = chosen(request, models)
        try:
            answer = await backend.answer(model, to_query(request, model))
        except CandidateFailedError:
            model = models.pick_incumbent()
            answer = await backend.answer(model, to_query(request, model))
        return JsonAnswer(shown(answer, model, telemetry))

    @routes.post("/v1/recommend:batch", response_model=BatchResponse)
    async def recommend_batch(request: BatchRequest) -> JsonAnswer:
        """Several questions in one call; each answer is the one that the question alone would get."""
        models = backend.models
        places: dict[str, list[int]] = {}
        for place, one in enumerate(request.requests):
            places.setdefault(chosen(one, models, f"requests.{place}.").version, []).append(place)
        results: list[dict[str, Any]] = [{} for _ in request.requests]
        for version, chosen_places in places.items():
            part = {place: request.requests[place] for place in chosen_places}
            model = models.named(version)
            try:
                answers = await backend.answer_all(model, queries_of(part, model))
            except CandidateFailedError:
                model = models.pick_incumbent()
                answers = await backend.answer_all(model, queries_of(part, model))
            for place, answer in zip(part, answers, strict=True):
                results[place] = shown(answer, model, telemetry)
        return JsonAnswer({"results": results})

    return routes


def chosen(request: RecommendRequest, models: Models, field: str = "") -> Served:
    """The model that answers: the one that is named, else by user, else by the first item of the history, which stays
    the same while a visitor's history grows.

    Raises:
        ApiError: 503, nothing is loaded; 422, no such model.
    """
    incumbent = models.pick(request.user_id or "".join((request.history or [])[:1]))
    if request.model is None:
        return incumbent
    try:
        return models.named(request.model)
    except ApiError as error:
        raise ApiError(422, error.message, f"{field}model") from error


def to_query(request: RecommendRequest, model: Served, field: str = "") -> Query:
    """The recommender's query for a request; `field` leads to the request in error answers.

    Raises:
        ApiError: 422, the artifact does not carry this user's history.
    """
    if request.history is not None:
        return Query(request.history, request.k, request.exclude_seen)
    try:
        return model.recommender.user_query(request.user_id or "", request.k, request.exclude_seen)
    except DataError as error:
        raise ApiError(422, str(error), f"{field}user_id") from error


def queries_of(requests: Mapping[int, RecommendRequest], model: Served) -> list[Query]:
    """The queries for some requests of a batch, by their places in it.

    Raises:
        ApiError: see `to_query`.
    """
    return [to_query(request, model, f"requests.{place}.") for place, request in requests.items()]


def shown(answer: Recommendation, model: Served, telemetry: Telemetry) -> dict[str, Any]:
    """The body of an answer."""
    telemetry.unknown(len(answer.unknown_items))
    items = [{"item_id": item.item_id, "title": item.title, "score": item.score} for item in answer.items]
    return {"items": items, "model": model.name, "unknown_items": answer.unknown_items, "fallback": answer.fallback}
