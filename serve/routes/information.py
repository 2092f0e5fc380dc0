"""``GET /v1/model`` and ``GET /v1/items``: what serves, and what it can rank."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from components.artifacts.opinions import OPINIONS
from components.artifacts.pictures import PICTURES_FILE
from serve.backend import Backend
from serve.histories.histories import Histories
from serve.routes import new_items
from serve.routes.common import ERRORS
from serve.schema import ItemsResponse, ModelResponse


def router(backend: Backend, histories: Histories) -> APIRouter:
    """The two routes."""
    routes = APIRouter(tags=["information"], responses=ERRORS)

    @routes.get("/v1/model", response_model=ModelResponse)
    async def model() -> JSONResponse:
        """The model that serves: what it is, how it was made, how it measured."""
        models = backend.models
        served = models.pick("")
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
        found = await asyncio.to_thread(backend.models.pick("").recommender.search, query, limit)
        return JSONResponse({"items": [{"item_id": item_id, "title": title} for item_id, title in found]})

    return routes
