"""The HTTP application, without Ray: the routes over anything that answers queries."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from serve import errors
from serve.admission import Admission
from serve.backend import Backend
from serve.guard import Guard
from serve.histories.base import BaseHistories
from serve.histories.histories import Histories
from serve.keys import Keys
from serve.routes import events, information, new_items, opinions, pages, pictures, probes, recommend
from serve.settings import Settings
from serve.snapshots import Snapshots
from serve.telemetry import Telemetry


def create_app(
    backend: Backend, settings: Settings, replica: str = "local", histories: Histories | None = None
) -> FastAPI:
    """Build the application.

    Args:
        backend: what answers queries.
        settings: limits and access.
        replica: name of this replica in the metrics.
        histories: of users, closed by whoever opened them; those that the artifact carries by default.

    Raises:
        ConfigError: the keys file cannot be used.
    """
    app = FastAPI(
        title="distilrec",
        description="Recommendations from a distilled model.",
        version="1",
        docs_url=None,
        redoc_url=None,
    )
    incumbent = backend.models.incumbent
    if histories is None:
        folder = incumbent.recommender.folder if incumbent else None
        histories = Histories(BaseHistories.of_artifact(folder) if folder else BaseHistories.empty())
    admission = Admission(settings)
    shared = Snapshots(Path(settings.metrics_folder), replica) if settings.metrics_folder else None
    telemetry = Telemetry(replica, lambda: backend.models, admission, shared)
    app.state.telemetry = telemetry
    errors.install(app)
    routers = (
        recommend.router(backend, telemetry, histories),
        events.router(backend, histories, telemetry),
        pictures.router(backend),  # before the items' own routes: an item id may hold a slash
        opinions.router(backend),
        information.router(backend, histories),
        new_items.router(backend, telemetry, settings.timeout_s),
        probes.router(backend, telemetry),
        pages.router(),
    )
    for router in routers:
        app.include_router(router)
    paths = frozenset(str(getattr(route, "path", "")) for router in routers for route in router.routes)
    app.add_middleware(
        Guard, settings=settings, keys=Keys(settings), telemetry=telemetry, admission=admission, paths=paths
    )
    return app
