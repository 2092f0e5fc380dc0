"""Error answers: one body for all, without a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "slow_request",
    409: "conflict",
    413: "too_large",
    422: "invalid",
    429: "overloaded",
    500: "internal",
    503: "loading",
    504: "timeout",
}
BUSY: Final = "too many requests at once; try again in {} s"


class ApiError(HTTPException):
    """An error answer.

    Args:
        status: HTTP status; the body's code follows from it.
        message: one sentence for people.
        field: the part of the request that is wrong.
        headers: more headers, such as ``Retry-After``.
        code: the body's code, where the status does not say enough.
    """

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.message, self.field, self.code = message, field, code

    def response(self) -> JSONResponse:
        """The answer itself."""
        return error_response(self.status_code, self.message, self.field, self.headers, self.code)


def error_response(
    status: int,
    message: str,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
    code: str | None = None,
) -> JSONResponse:
    """An answer with the body ``{code, message, field}``."""
    body = {"code": code or CODES.get(status, "error"), "message": message, "field": field}
    return JSONResponse(body, status_code=status, headers=dict(headers or {}))


def install(app: FastAPI) -> None:
    """Give every error of `app` the common body."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ApiError):
        return error.response()
    assert isinstance(error, HTTPException)
    message = {
        404: f"there is nothing at {request.url.path}; the endpoint's paths are listed at /docs",
        405: f"{request.method} is not possible at {request.url.path}; see /docs",
    }.get(error.status_code, str(error.detail))
    return error_response(error.status_code, message, None, error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(422, f"the body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query")) or None
    more = len(error.errors()) - 1
    message = first["msg"].removeprefix("Value error, ") + (f" (and {more} more)" if more else "")
    if first["type"] == "extra_forbidden":
        message = f"unknown key; see /docs for the known ones{f' (and {more} more)' if more else ''}"
    return error_response(422, message, field)
