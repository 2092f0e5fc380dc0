"""How tests ask the application: through Starlette's client, or message by message as a server would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.testclient import TestClient
from starlette.types import Message

from serve.app import create_app
from serve.backend import Backend
from serve.settings import Settings


def make_client(backend: Backend, peer: str = "127.0.0.1", **settings: Any) -> TestClient:
    app = create_app(backend, Settings(**settings))
    return TestClient(app, base_url="http://127.0.0.1:8000", client=(peer, 1234), raise_server_exceptions=False)


async def converse(
    app: Any, receive: Callable[[], Awaitable[Message]], headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], dict[str, Any] | None]:
    """Status, headers and body that `app` gives to a POST whose body arrives as `receive` says; status 0 for none."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1", "content-type": "application/json", "transfer-encoding": "chunked", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/recommend",
        "raw_path": b"/v1/recommend",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    if not sent:
        return 0, {}, None
    body = b"".join(message.get("body", b"") for message in sent[1:])
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, json.loads(body) if body else None


def never() -> Awaitable[Message]:
    """The next message of a client that sends nothing more."""
    return asyncio.Event().wait()  # type: ignore[return-value]
