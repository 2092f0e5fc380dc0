"""What several routes say of errors, and how answers are written."""

from __future__ import annotations

import logging
from typing import Any, Final

import orjson
from starlette.responses import Response

from serve.errors import ApiError
from serve.histories.store import StoreDownError
from serve.schema import ErrorResponse

logger = logging.getLogger("distilrec.serve")

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 408, 413, 422, 429, 500, 503, 504)
}


class JsonAnswer(Response):
    """A JSON body; for answers of many items orjson writes it in a sixth of the time of the standard library."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of `content`."""
        return orjson.dumps(content)


def store_down(error: StoreDownError, message: str) -> ApiError:
    """The answer where a request needs a store that is down; the log has the reason."""
    logger.error("%s", error)
    return ApiError(503, message, headers={"Retry-After": "1"}, code="store_down")
