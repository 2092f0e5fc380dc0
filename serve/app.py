"""The HTTP application, without Ray: routes over anything that answers queries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse, JSONResponse, Response

from components.artifacts.format import read_json
from components.errors import DataError
from components.recommender import Query as ItemQuery
from components.recommender import Recommendation, Recommender
from components.schema import METRICS_FILE
from serve import errors
from serve.errors import ApiError
from serve.guard import Guard
from serve.schema import (
    BatchRequest,
    BatchResponse,
    ErrorResponse,
    ItemsResponse,
    ModelResponse,
    RecommendRequest,
    RecommendResponse,
)
from serve.settings import Settings
from serve.telemetry import Telemetry

PAGES: Final = Path(__file__).parent / "pages"
PAGE_HEADERS: Final = {  # the pages are self-contained and talk to their own origin alone
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorResponse} for status in (401, 413, 422, 429, 503)
}


class Backend(Protocol):
    """What answers queries: a recommender in this process, or a Ray Serve replica that batches them."""

    @property
    def recommender(self) -> Recommender | None:
        """The loaded model; None while it loads."""
        ...

    async def answer(self, query: ItemQuery) -> Recommendation:
        """Answer one query, possibly together with those of other requests."""
        ...

    async def answer_all(self, queries: Sequence[ItemQuery]) -> list[Recommendation]:
        """Answer the queries of one request."""
        ...


class LocalBackend:
    """Answers in a thread of this process, without batching.

    Args:
        recommender: None while it loads.
    """

    def __init__(self, recommender: Recommender | None) -> None:
        self.recommender = recommender

    async def answer(self, query: ItemQuery) -> Recommendation:
        """Answer one query."""
        return (await self.answer_all([query]))[0]

    async def answer_all(self, queries: Sequence[ItemQuery]) -> list[Recommendation]:
        """Answer several queries."""
        return await asyncio.to_thread(loaded(self).answer, queries)


def loaded(backend: Backend) -> Recommender:
    """The backend's recommender.

    Raises:
        ApiError: 503, it is still loading.
    """
    if backend.recommender is None:
        raise ApiError(503, "the model is loading; try again in a moment", headers={"Retry-After": "1"})
    return backend.recommender


def create_app(backend: Backend, settings: Settings, replica: str = "local") -> FastAPI:
    """Build the application.

    Args:
        backend: what answers queries.
        settings: limits and access.
        replica: name of this replica in the metrics.
    """
    app = FastAPI(
        title="distilrec",
        description="Recommendations from a distilled model.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    name = backend.recommender.name if backend.recommender else ""
    telemetry = Telemetry(replica, name)
    errors.install(app)
    _add_recommend(app, backend, telemetry)
    _add_information(app, backend)
    _add_probes(app, backend, telemetry)
    _add_pages(app)
    paths = frozenset(str(getattr(route, "path", "")) for route in app.routes)
    app.add_middleware(Guard, settings=settings, telemetry=telemetry, paths=paths)
    return app


def _add_recommend(app: FastAPI, backend: Backend, telemetry: Telemetry) -> None:
    def shown(answer: Recommendation, recommender: Recommender) -> dict[str, Any]:
        telemetry.unknown(len(answer.unknown_items))
        items = [{"item_id": item.item_id, "title": item.title, "score": item.score} for item in answer.items]
        return {
            "items": items,
            "model": recommender.name,
            "unknown_items": answer.unknown_items,
            "fallback": answer.fallback,
        }

    @app.post("/v1/recommend", response_model=RecommendResponse, responses=ERRORS, tags=["recommend"])
    async def recommend(request: RecommendRequest) -> JSONResponse:
        """The best items after a history, or for a user whose history the artifact carries."""
        recommender = loaded(backend)
        answer = await backend.answer(to_query(request, recommender))
        return JSONResponse(shown(answer, recommender))

    @app.post("/v1/recommend:batch", response_model=BatchResponse, responses=ERRORS, tags=["recommend"])
    async def recommend_batch(request: BatchRequest) -> JSONResponse:
        """Several questions in one call; each answer is the one that the question alone would get."""
        recommender = loaded(backend)
        queries = [to_query(one, recommender, f"requests.{i}.") for i, one in enumerate(request.requests)]
        answers = await backend.answer_all(queries)
        return JSONResponse({"results": [shown(answer, recommender) for answer in answers]})


def to_query(request: RecommendRequest, recommender: Recommender, field: str = "") -> ItemQuery:
    """The recommender's query for a request; `field` leads to the request in error answers.

    Raises:
        ApiError: 422, the artifact does not carry this user's history.
    """
    if request.history is not None:
        return ItemQuery(request.history, request.k, request.exclude_seen)
    try:
        return recommender.user_query(request.user_id or "", request.k, request.exclude_seen)
    except DataError as error:
        raise ApiError(422, str(error), f"{field}user_id") from error


def _add_information(app: FastAPI, backend: Backend) -> None:
    @app.get("/v1/model", response_model=ModelResponse, responses=ERRORS, tags=["information"])
    async def model() -> JSONResponse:
        """The model that serves: what it is, how it was made, how it measured."""
        recommender = loaded(backend)
        return JSONResponse(
            {
                "name": recommender.name,
                "kind": recommender.config.kind,
                "family": recommender.config.family,
                "num_items": recommender.num_items,
                "parameters": recommender.parameters,
                "metrics": read_json(recommender.folder / METRICS_FILE),
                "user_histories": recommender.has_users,
                "manifest": recommender.manifest,
            }
        )

    @app.get("/v1/items", response_model=ItemsResponse, responses=ERRORS, tags=["information"])
    async def items(
        query: Annotated[str, Query(max_length=200)] = "", limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> JSONResponse:
        """Items whose id or title holds `query`, the most frequent ones first; all for an empty query."""
        found = await asyncio.to_thread(loaded(backend).search, query, limit)
        return JSONResponse({"items": [{"item_id": item_id, "title": title} for item_id, title in found]})


def _add_probes(app: FastAPI, backend: Backend, telemetry: Telemetry) -> None:
    @app.get("/healthz", tags=["probes"])
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"model": ErrorResponse}}, tags=["probes"])
    async def readyz() -> dict[str, str]:
        """Whether the model is loaded."""
        return {"status": "ready", "model": loaded(backend).name}

    @app.get("/metrics", tags=["probes"], response_class=Response)
    async def metrics() -> Response:
        """Counts and latencies in Prometheus text."""
        return Response(telemetry.text(), headers={"Content-Type": telemetry.content_type})


def _add_pages(app: FastAPI) -> None:
    pages = {name: (PAGES / name).read_text(encoding="utf-8") for name in ("index.html", "docs.html")}

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(pages["index.html"], headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(pages["docs.html"], headers=PAGE_HEADERS)
