"""Request ids: one per request, the client's own where it is sane, in every answer and log line."""

from __future__ import annotations

import re
import secrets
from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER: Final = b"x-request-id"
SANE: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def identify(scope: Scope) -> str:
    """The id of a request; where the client sent none, or an unusable one, a new one takes its place in the headers."""
    for name, value in scope["headers"]:
        if name == HEADER and SANE.fullmatch(value):
            return str(value, "ascii")
    made = secrets.token_hex(8)
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] != HEADER] + [(HEADER, made.encode())]
    return made


def stamp(message: Message, request_id: str) -> None:
    """Put the id into the head of an answer, once."""
    if message["type"] == "http.response.start":
        others = [pair for pair in message.get("headers", []) if pair[0].lower() != HEADER]
        message["headers"] = [*others, (HEADER, request_id.encode())]


class RequestIds:
    """Middleware around Ray Serve's own answers, which do not pass the application, such as those of its time limit."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Identify, pass on, stamp."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = identify(scope)

        async def sending(message: Message) -> None:
            stamp(message, request_id)
            await send(message)

        await self.app(scope, receive, sending)


def middlewares() -> list[Middleware]:
    """What Ray Serve asks for by the name in RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(RequestIds)]
