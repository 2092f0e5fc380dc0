"""``GET /v1/items/ITEM_ID/picture``: a thumbnail, where the artifact carries pictures."""

from __future__ import annotations

import asyncio
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from components.artifacts.pictures import MEDIA_TYPE, PICTURES_FILE, Pictures
from serve.backend import Backend
from serve.errors import ApiError
from serve.models import Served
from serve.routes.common import ERRORS
from serve.schema import ErrorResponse

CACHED: Final = "private, max-age=3600"  # a new release may bring another picture; after an hour the tag decides
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {MEDIA_TYPE: {}}, "description": "the picture"},
    404: {"model": ErrorResponse},
}


def router(backend: Backend) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["information"], responses=ERRORS)

    @routes.get("/v1/items/{item_id:path}/picture", response_class=Response, responses=ANSWERS)
    async def picture(item_id: str, request: Request) -> Response:
        """An item's picture: that of the model that serves, else of another loaded one."""
        backend.models.pick_incumbent()
        content = await asyncio.to_thread(_find, backend.models.loaded, item_id)
        if content is None:
            raise ApiError(404, "there is no picture of this item", "item_id")
        headers = {"Cache-Control": CACHED, "ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=MEDIA_TYPE, headers={**headers, "X-Content-Type-Options": "nosniff"})

    return routes


def _find(loaded: list[Served], item_id: str) -> bytes | None:
    for served in loaded:
        known = served.recommender
        digest, number = known.manifest["files"].get(PICTURES_FILE), known.number(item_id)
        if digest and number is not None:
            content = _opened(known.folder / PICTURES_FILE, digest).get(number)
            if content is not None:
                return content
    return None


@lru_cache(maxsize=8)
def _opened(path: Path, digest: str) -> Pictures:
    """The file, opened once; `digest` tells it from a later one at the same place."""
    return Pictures(path)
