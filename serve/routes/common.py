"""What every route's description says of errors."""

from __future__ import annotations

from typing import Any, Final

from serve.schema import ErrorResponse

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorResponse} for status in (401, 413, 422, 429, 503)
}
