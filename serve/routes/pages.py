"""``/`` and ``/docs``: pages for people, and the styles, scripts and pictures that they are made of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve.errors import ApiError

PAGES: Final = Path(__file__).parents[1] / "pages"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final = {  # the pages are self-contained and talk to their own origin alone
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a shared link holds a history
    "Cache-Control": "no-cache",  # kept, but asked for each time: the tag answers that in a few bytes
}


def router() -> APIRouter:
    """The two pages and their parts."""
    routes = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in sorted(PAGES.iterdir()) if path.suffix in TYPES}
    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:16]}"' for name, content in files.items()}

    def answer(name: str, request: Request) -> Response:
        headers = {**HEADERS, "ETag": tags[name]}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(files[name], headers={**headers, "Content-Type": TYPES[Path(name).suffix]})

    @routes.get("/")
    async def index(request: Request) -> Response:
        return answer("index.html", request)

    @routes.get("/docs")
    async def docs(request: Request) -> Response:
        return answer("docs.html", request)

    @routes.get("/pages/{name}")
    async def part(name: str, request: Request) -> Response:
        if name not in files:
            raise ApiError(404, "the pages have no such part", "name")
        return answer(name, request)

    return routes
