"""``/`` and ``/docs``: pages for people."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PAGES: Final = Path(__file__).parents[1] / "pages"
HEADERS: Final = {  # the pages are self-contained and talk to their own origin alone
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}


def router() -> APIRouter:
    """The two pages."""
    routes = APIRouter(include_in_schema=False)
    pages = {name: (PAGES / name).read_text(encoding="utf-8") for name in ("index.html", "docs.html")}

    @routes.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(pages["index.html"], headers=HEADERS)

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(pages["docs.html"], headers=HEADERS)

    return routes
