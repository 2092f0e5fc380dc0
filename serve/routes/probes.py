"""``/healthz``, ``/readyz`` and ``/metrics``: what machines ask."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from serve.backend import Backend
from serve.schema import ErrorResponse
from serve.telemetry import Telemetry


def router(backend: Backend, telemetry: Telemetry) -> APIRouter:
    """The three routes."""
    routes = APIRouter(tags=["probes"])

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "alive"}

    @routes.get("/readyz", responses={503: {"model": ErrorResponse}})
    async def readyz() -> dict[str, str]:
        """Whether the model is loaded."""
        return {"status": "ready", "model": backend.models.pick_incumbent().name}

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and latencies in Prometheus text."""
        return Response(telemetry.text(), headers={"Content-Type": telemetry.content_type})

    return routes
