"""``POST /v1/events``: interactions while the endpoint serves."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from serve.backend import Backend
from serve.errors import ApiError
from serve.histories.histories import Histories
from serve.histories.schema import EventsRequest, EventsResponse
from serve.histories.store import StoreDownError
from serve.routes.common import ERRORS, store_down
from serve.schema import ErrorResponse
from serve.telemetry import Telemetry


def router(backend: Backend, histories: Histories, telemetry: Telemetry) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["events"], responses=ERRORS)

    @routes.post("/v1/events", response_model=EventsResponse, responses={409: {"model": ErrorResponse}})
    async def events(request: EventsRequest) -> JSONResponse:
        """Add interactions to users' histories. The answer comes when they are durable; the next recommendation knows
        them."""
        if not histories.takes_events:
            raise ApiError(409, "this endpoint keeps no events; start it with `distilrec serve RUN --histories FOLDER`")
        model = backend.models.pick_incumbent().recommender
        asked = request.to_events()
        try:
            with telemetry.asking_store("events", "append"):
                stored = await histories.append(asked)
        except StoreDownError as error:
            raise store_down(
                error,
                "the event store is down, and whether it kept the events is unknown; send them again, with an "
                "`event_id` each so that none counts twice",
            ) from error
        telemetry.stored("events", stored)
        unknown = model.unknown_items(list(dict.fromkeys(event.item_id for event in asked)))
        return JSONResponse({"stored": stored, "duplicates": len(asked) - stored, "unknown_items": unknown})

    return routes
