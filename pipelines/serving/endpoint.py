"""An artifact or a line of releases behind an HTTP endpoint, on Ray Serve."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from components.errors import StageError, UserError
from serve import haproxy, request_ids
from serve.histories.source import NO_EVENTS, HistorySource
from serve.item_source import ItemKeeping
from serve.release.controller import driven
from serve.release.line import Line
from serve.settings import Settings

if TYPE_CHECKING:
    from pipelines.config import ClusterConfig

PROXY_START_S: Final = "60"
Proxy = Literal["auto", "haproxy", "plain"]


@contextmanager
def endpoint(
    artifact: Path,
    settings: Settings,
    host: str,
    port: int,
    replicas: int = 1,
    proxy: Proxy = "auto",
    line: Line | None = None,
    histories: HistorySource = NO_EVENTS,
    keeping: ItemKeeping | None = None,
) -> Iterator[None]:
    """Hold a running endpoint; it answers when the block is entered and is gone when it is left.

    Args:
        artifact: what answers.
        settings: limits and access.
        host: where to listen.
        port: where to listen.
        replicas: processes that answer.
        proxy: ``"haproxy"`` is many times cheaper per request, ``"plain"`` is Ray Serve's own; ``"auto"`` takes HAProxy
            where it works.
        line: a line of releases; replicas follow it, instead of `artifact`, and its releases are driven here.
        histories: where those of users are.
        keeping: where new items are kept and read; None where none are taken.

    Raises:
        StageError: it does not start; the reason is chained.
    """

    def make(known: Settings) -> Any:
        from serve.endpoint import build

        return build(str(artifact), known, replicas, str(line.folder) if line else None, histories, keeping)

    if line is not None:
        line.forget_replicas()  # those of an endpoint that is gone
    try:
        with running(make, settings, host, port, replicas, proxy), driven(line) if line else nullcontext():
            yield
    finally:
        if line is not None:
            line.forget_replicas()


@contextmanager
def running(
    make: Callable[[Settings], Any], settings: Settings, host: str, port: int, replicas: int = 1, proxy: Proxy = "auto"
) -> Iterator[None]:
    """Hold a running application of Ray Serve.

    Args:
        make: the application; called when Ray Serve may be imported.
        settings: limits and access.
        host: where to listen.
        port: where to listen.
        replicas: processes that answer.
        proxy: see `serve`.

    Raises:
        StageError: it does not start; the reason is chained.
    """
    folder = Path(tempfile.mkdtemp(prefix="dserve"))  # private (0700): sockets and state of the proxy
    try:
        os.environ.update(_proxy_environment(proxy, folder, settings))
        if not os.environ.get("RAY_ADDRESS"):
            settings = settings.model_copy(update={"metrics_folder": str(folder / "metrics")})
        from pipelines.ray_session import ray_session  # after the environment is set: Ray Serve reads it on import

        with ray_session(_cluster(replicas)), _application(make, settings, host, port):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _proxy_environment(proxy: Proxy, folder: Path, settings: Settings) -> dict[str, str]:
    """The environment for the wanted proxy; empty where a running cluster is joined, which has its own."""
    if os.environ.get("RAY_ADDRESS") or "ray.serve" in sys.modules:
        return {}
    common = {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{request_ids.__name__}.middlewares",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": PROXY_START_S,  # five seconds by default, too few on a busy machine
    }
    if proxy == "plain":
        return common
    binary = haproxy.binary()
    if binary is None:
        if proxy == "haproxy":
            raise UserError("HAProxy does not run on this machine; use --proxy plain, or install ray[serve] on Linux")
        return common
    return common | haproxy.environment(binary, folder, settings)


def _cluster(replicas: int) -> ClusterConfig:
    from pipelines.config import ClusterConfig

    return ClusterConfig(num_cpus=max(4, replicas + 2), object_store_mb=128)


@contextmanager
def _application(make: Callable[[Settings], Any], settings: Settings, host: str, port: int) -> Iterator[None]:
    from ray import serve as ray_serve
    from ray.exceptions import RayError
    from ray.serve.config import ProxyLocation

    from serve.endpoint import APP_NAME

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # its import made it talkative
    quiet = {"log_level": "WARNING", "enable_access_log": False}  # /metrics counts; a line per request costs
    late = settings.body_timeout_s + settings.timeout_s + 10  # the application's own limits come first
    options = {"host": host, "port": port, "request_timeout_s": late}
    try:
        try:
            ray_serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=options, logging_config=quiet)
        except (RuntimeError, TimeoutError, RayError) as error:
            raise StageError(
                f"the endpoint's proxy does not start ({type(error).__name__}): it was stopped, or the machine is too "
                "busy; start it again, or try --proxy plain"
            ) from error
        try:
            ray_serve.run(make(settings), name=APP_NAME, route_prefix="/")
        except (RuntimeError, RayError) as error:
            raise StageError(f"the endpoint does not start: {_reason(ray_serve) or error}") from error
        yield
    finally:
        ray_serve.shutdown()  # type: ignore[no-untyped-call]


def _reason(ray_serve: Any) -> str:
    """The last line of what the failing replica said; Ray Serve's own error only says that there was one."""
    for application in ray_serve.status().applications.values():
        for deployment in application.deployments.values():
            lines = [line.strip() for line in deployment.message.splitlines() if line.strip()]
            errors = [line for line in lines if "Error" in line.partition(":")[0]]
            if errors:
                return str(errors[-1])
    return ""
