"""What every request passes first: peer, key, load and size; and what turns a failure into an answer."""

from __future__ import annotations

import logging
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import ApiError, error_response
from serve.settings import Settings, is_loopback
from serve.telemetry import Telemetry

logger = logging.getLogger("distilrec.serve")
OPEN_PATHS: Final = frozenset(
    {"/", "/healthz", "/readyz", "/docs", "/openapi.json"}
)  # no data behind them, no key asked
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # answered under overload too


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        settings: limits and access.
        telemetry: where requests are counted.
        paths: the application's paths; others are counted together.
    """

    def __init__(self, app: ASGIApp, settings: Settings, telemetry: Telemetry, paths: frozenset[str]) -> None:
        self.app, self.settings, self.telemetry, self.paths = app, settings, telemetry, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, pass on, count."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.telemetry.begin()
        try:
            self._check(scope)
            await self.app(scope, self._limited(receive), sending)
        except ApiError as error:
            await error.response()(scope, receive, sending)
        except Exception:  # the last frame: it is logged, and the client gets an answer without a traceback
            logger.exception("request failed: %s %s", scope["method"], scope["path"])
            await error_response(500, "the server failed; its log has the reason")(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.telemetry.end(path, status, time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        settings, headers, path = self.settings, Headers(scope=scope), scope["path"]
        peer = scope.get("client")
        if settings.loopback_only and not (peer and is_loopback(peer[0]) and is_loopback(_host(headers))):
            raise ApiError(403, "this endpoint answers its own machine only; start it with --host to open it")
        if path not in OPEN_PATHS and not settings.accepts(_key(headers)):
            message = "a valid API key is required: send the header `Authorization: Bearer KEY`"
            raise ApiError(401, message, headers={"WWW-Authenticate": "Bearer"})
        if path not in PROBES and self.telemetry.in_flight > settings.max_in_flight:
            retry = {"Retry-After": str(settings.retry_after_s)}
            raise ApiError(429, f"too many requests at once; try again in {settings.retry_after_s} s", headers=retry)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the body is larger than {self.settings.max_body_bytes} bytes; send fewer requests per call"
        )

    def _limited(self, receive: Receive) -> Receive:
        """Count the body while it arrives: its declared length may be absent or a lie."""
        total = 0

        async def receiving() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.settings.max_body_bytes:
                raise self._too_large()
            return message

        return receiving


def _host(headers: Headers) -> str:
    """The host that the client asked for, without its port: a page of another site that rebinds its name to this
    machine gives itself away here."""
    return headers.get("host", "").rpartition("]")[0].lstrip("[") or headers.get("host", "").partition(":")[0]


def _key(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
