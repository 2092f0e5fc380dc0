"""``GET /v1/model``, ``/v1/items`` and ``/v1/items/{item_id}``: what serves, and what it can rank."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from components.artifacts.opinions import OPINIONS
from components.artifacts.pictures import PICTURES_FILE
from components.recommender import Recommender
from serve.backend import Backend
from serve.errors import ApiError
from serve.histories.histories import Histories
from serve.routes import new_items
from serve.routes.common import ERRORS
from serve.schema import CatalogItem, ErrorResponse, ItemsResponse, ModelResponse


def router(backend: Backend, histories: Histories) -> APIRouter:
    """The three routes."""
    routes = APIRouter(tags=["information"], responses=ERRORS)

    @routes.get("/v1/model", response_model=ModelResponse)
    async def model() -> JSONResponse:
        """The model that serves: what it is, how it was made, how it measured."""
        models = backend.models
        served = models.pick_incumbent()
        recommender = served.recommender
        return JSONResponse(
            {
                "name": recommender.name,
                "version": served.version,
                "versions": [{"version": one.version, "name": one.name} for one in models.loaded],
                "kind": recommender.config.kind,
                "family": recommender.config.family,
                "num_items": recommender.num_items,
                "parameters": recommender.parameters,
                "metrics": recommender.metrics,
                "user_histories": histories.knows_users,
                "attributes": recommender.attributes.names,
                "retrieval": _retrieval(recommender),
                "pictures": PICTURES_FILE in recommender.manifest["files"],
                "teachers": list(recommender.manifest.get(OPINIONS, {}).get("teachers", ())),
                "new_items": await asyncio.to_thread(new_items.information, backend.growing, served),
                "manifest": recommender.manifest,
            }
        )

    @routes.get("/v1/items", response_model=ItemsResponse)
    async def items(
        query: Annotated[str, Query(max_length=200)] = "", limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> JSONResponse:
        """Items whose id or title holds `query`, the most frequent ones first; all for an empty query."""
        recommender = backend.models.pick_incumbent().recommender
        found = await asyncio.to_thread(recommender.search, query, limit)
        return JSONResponse({"items": [_described(recommender, item_id) for item_id, _ in found]})

    @routes.get("/v1/items/{item_id:path}", response_model=CatalogItem, responses={404: {"model": ErrorResponse}})
    async def item(item_id: str) -> JSONResponse:
        """One item: its title and its attributes. An id may hold slashes."""
        recommender = backend.models.pick_incumbent().recommender
        if recommender.item(item_id) is None:
            raise ApiError(404, f"the catalogue holds no item {item_id!r}", "item_id")
        return JSONResponse(_described(recommender, item_id))

    return routes


def _described(recommender: Recommender, item_id: str) -> dict[str, Any]:
    title, attributes = recommender.item(item_id) or (None, {})
    return {"item_id": item_id, "title": title, "attributes": attributes}


def _retrieval(recommender: Recommender) -> dict[str, Any]:
    recall = recommender.recall
    return {"method": "exact"} if recall is None else {"method": "faiss", **recall.as_dict()}
