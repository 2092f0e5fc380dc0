"""The Ray Serve deployment of a streaming model: one process that learns in a thread and answers in others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve.config import BackpressureConfig

from serve.health import PERIOD_S, TIMEOUT_S
from serve.logs import open_log
from serve.settings import Settings
from serve.stream.app import create_stream_app
from serve.stream.learning import Learning, rating_scale


@ray_serve.deployment(
    name="stream",
    max_ongoing_requests=1024,  # above Settings.max_in_flight: the application sheds first, with its own error body
    max_queued_requests=1024,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    health_check_period_s=PERIOD_S,
    health_check_timeout_s=TIMEOUT_S,
    graceful_shutdown_wait_loop_s=0.5,
    graceful_shutdown_timeout_s=10,
    max_constructor_retry_count=1,  # a corrupt artifact does not heal
    ray_actor_options={"num_cpus": 1},
)
@ray_serve.ingress()
class StreamEndpoint:
    """The one replica: a single writer keeps the order of events, and with it the numbers.

    Args:
        artifact: folder of a finished stream.
        settings: limits and access.
        folder: where events and what was learned of them are kept.
    """

    def __init__(self, artifact: str, settings: dict[str, Any], folder: str) -> None:
        torch.set_num_threads(1)
        self.settings = Settings.model_validate(settings)
        open_log(self.settings, _replica_name())
        self.learning = Learning(Path(artifact), Path(folder), rating_scale(Path(artifact))).start()

    def __del__(self) -> None:
        if hasattr(self, "learning"):  # the constructor may have failed
            self.learning.close()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP application of this replica; Ray Serve calls it after the constructor."""
        return create_stream_app(self.learning, self.settings, _replica_name())


def _replica_name() -> str:
    return str(ray_serve.get_replica_context().replica_id.unique_id)


def build_stream(artifact: str, settings: Settings, folder: str) -> Any:
    """The Ray Serve application of a finished stream."""
    deployment: Any = StreamEndpoint  # the decorator is not typed
    return deployment.options(num_replicas=1).bind(artifact, settings.model_dump(), folder)
