"""What every request passes first: peer, key, load, size and time; and what turns a failure into an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.admission import Admission
from serve.errors import BUSY, ApiError, error_response
from serve.haproxy import LIMIT
from serve.keys import Keys, expected, given_key
from serve.logs import AccessLog
from serve.record import Record, begin
from serve.request_ids import identify, stamp
from serve.settings import Settings, is_loopback
from serve.telemetry import Telemetry

OPEN_PATHS: Final = frozenset(
    {"/", "/healthz", "/readyz", "/docs", "/openapi.json"}
)  # no data behind them, no key asked
ASSETS: Final = "/pages/"  # styles and scripts of the pages
PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # answered under overload too
GONE: Final = 499  # in logs and metrics: the client went away before its answer
CLOSE: Final = {"Connection": "close"}  # what is left of the body would be read as the next request


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        settings: limits and access.
        keys: who may ask.
        telemetry: where requests are counted.
        admission: how many are let in.
        paths: the application's paths; others are counted together.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        keys: Keys,
        telemetry: Telemetry,
        admission: Admission,
        paths: frozenset[str],
    ) -> None:
        self.app, self.settings, self.keys, self.paths = app, settings, keys, paths
        self.telemetry, self.admission, self.log = telemetry, admission, AccessLog(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, pass on, count."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = Record(identify(scope))
        begin(record)
        status = 0  # nothing was sent yet

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                stamp(message, record.request_id)
                spent = (
                    f"total;dur={(time.perf_counter() - record.started) * 1000:.2f}"  # milliseconds; browsers show it
                )
                told = ((b"server-timing", spent.encode()), (LIMIT.lower().encode(), b"%d" % self.admission.limit))
                message["headers"] = [*message.get("headers", ()), *told]
            await send(message)

        method, path = scope["method"], scope["path"]
        try:
            self._check(scope, record)
            await self._answer(scope, receive, sending, record)
        except ApiError as error:
            if not status:
                await error.response()(scope, receive, sending)
        except _ClientGone:
            status = GONE
        except asyncio.CancelledError:  # Ray Serve cancels a request whose client is gone
            status = status or GONE
            raise
        except Exception as error:  # noqa: BLE001  (the last frame: it is logged, and the client gets no traceback)
            self.log.failure(record, method, path, error)
            if not status:
                await error_response(500, "the server failed; its log has the reason")(scope, receive, sending)
        finally:
            ended = time.perf_counter()
            self.telemetry.end(path if path in self.paths else "other", status, record, ended)
            self.log.request(record, method, path, status, ended - record.started)

    def _check(self, scope: Scope, record: Record) -> None:
        settings, headers, path = self.settings, Headers(scope=scope), scope["path"]
        peer = scope.get("client")
        if settings.loopback_only and not (peer and is_loopback(peer[0]) and is_loopback(_host(headers))):
            raise ApiError(403, "this endpoint answers its own machine only; start it with --host to open it")
        if self.keys.needed and path not in OPEN_PATHS and not path.startswith(ASSETS):
            record.key = self.keys.identify(given_key(headers))
            if record.key is None:
                raise ApiError(401, expected(headers), headers={"WWW-Authenticate": "Bearer"})
        if path not in PROBES and self.admission.full():
            retry = {"Retry-After": str(settings.retry_after_s)}
            raise ApiError(429, BUSY.format(settings.retry_after_s), headers=retry)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > settings.max_body_bytes:
            raise self._too_large()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        """Pass on to the application, within the time for the body and then the time for the answer."""
        if scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        body = _Body(receive, self, record)
        self.admission.enter()
        try:
            async with asyncio.timeout(self.settings.body_timeout_s) as body.deadline:
                if not has_body(scope):
                    body.complete()
                await self.app(scope, body, send)
        except TimeoutError as error:
            if not body.deadline.expired():
                raise
            raise self._late(record) from error
        finally:
            self.admission.leave(bool(record.received))
        if body.gone and not record.received:
            raise _ClientGone

    def _late(self, record: Record) -> ApiError:
        if record.received:
            return ApiError(504, f"no answer within {self.settings.timeout_s:g} s; try again")
        return ApiError(408, f"the body did not arrive within {self.settings.body_timeout_s:g} s", headers=CLOSE)

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the body is larger than {self.settings.max_body_bytes} bytes; send fewer requests per call"
        )


class _ClientGone(Exception):  # noqa: N818  (no error of ours)
    """The client went away in the middle of its request; nobody waits for an answer."""


class _Body:
    """Count the body while it arrives, for its declared length may be absent or a lie, and note when it is whole."""

    deadline: asyncio.Timeout

    def __init__(self, receive: Receive, guard: Guard, record: Record) -> None:
        self._receive, self._guard, self._record, self._bytes = receive, guard, record, 0
        self.gone = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
        elif not self._record.received:
            self._bytes += len(message.get("body", b""))
            if self._bytes > self._guard.settings.max_body_bytes:
                raise self._guard._too_large()
            if not message.get("more_body", False):
                self.complete()
        return message

    def complete(self) -> None:
        """The request is here: from now on it takes capacity, and the time for its answer runs."""
        self._record.received = time.perf_counter()
        self._guard.admission.start()
        self.deadline.reschedule(asyncio.get_running_loop().time() + self._guard.settings.timeout_s)


def has_body(scope: Scope) -> bool:
    """Whether a request announces a body."""
    announced = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
    return bool(announced) and announced.get(b"content-length") != b"0"


def _host(headers: Headers) -> str:
    """The host that the client asked for, without its port: a page of another site that rebinds its name to this
    machine gives itself away here."""
    return headers.get("host", "").rpartition("]")[0].lstrip("[") or headers.get("host", "").partition(":")[0]
