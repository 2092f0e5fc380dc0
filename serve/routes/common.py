"""What every route's description says of errors, and how answers are written."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.responses import Response

from serve.schema import ErrorResponse

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorResponse} for status in (401, 413, 422, 429, 503)
}


class JsonAnswer(Response):
    """A JSON body; for answers of many items orjson writes it in a sixth of the time of the standard library."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of `content`."""
        return orjson.dumps(content)
