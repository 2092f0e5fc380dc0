"""``distilrec serve``: an artifact behind an HTTP endpoint, on Ray Serve."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.console import Console

from components.errors import StageError, UserError
from components.recommender import MIN_RECALL, Recommender, Retrieval
from components.schema import MANIFEST_FILE
from pipelines.served import find_artifact
from pipelines.serving.histories import check_histories, find_histories
from pipelines.serving.item_encoder import item_keeping, items_notice
from serve import haproxy, request_ids
from serve.histories.source import NO_EVENTS, HistorySource
from serve.item_source import ItemKeeping
from serve.keys import Keys
from serve.loading import load
from serve.release.controller import driven
from serve.release.line import Line, line_of
from serve.settings import KEY_VARIABLE, AccessLog, Settings, access

if TYPE_CHECKING:
    from pipelines.config import ClusterConfig

PROXY_START_S: Final = "60"
Proxy = Literal["auto", "haproxy", "plain"]


def serve(
    run: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    *,
    proxy: Proxy = "auto",
    histories: str | None = None,
    keys: Path | None = None,
    access_log: AccessLog = "json",
    timeout_s: float = 10.0,
    item_encoders: Path | None = None,
    retrieval: Retrieval = "exact",
    min_recall: float = MIN_RECALL,
    block: bool = True,
) -> None:
    """Serve an artifact until Ctrl-C or SIGTERM, then stop after the requests in flight are answered.

    Args:
        run: a run or an artifact, see `pipelines.served.find_artifact`.
        host: where to listen; anything but loopback needs `keys` or an API key in the environment (DISTILREC_API_KEY).
        port: where to listen.
        replicas: processes that answer.
        proxy: ``"haproxy"`` is many times cheaper per request, ``"plain"`` is Ray Serve's own; ``"auto"`` takes HAProxy
            where it works.
        histories: where events are kept, see `pipelines.serving.histories.find_histories`.
        keys: a file of API keys, see `serve.keys.read_keys`; changes of it count without a restart.
        access_log: ``"json"`` writes a line per request into the logs, see `log_folder`.
        timeout_s: how long an answer may take.
        item_encoders: a run whose encoders and teachers read texts of new items; by default the run that is served.
        retrieval: ``"faiss"`` ranks candidates of an index alone; its recall is measured at the start.
        min_recall: below which that does not start.
        block: False returns as soon as the endpoint answers, and stops it; for checks.

    Raises:
        UserError: no artifact there, the port is taken, the host would be open to everybody, events have no place, or
            approximate retrieval is not possible or finds too little.
        ArtifactError: the artifact is corrupt, or answers otherwise than where it was made.
        StageError: the endpoint does not start.
    """
    keys_file = str(keys.resolve()) if keys else None
    settings = access(host, os.environ.get(KEY_VARIABLE), keys_file)
    needs_key = Keys(settings).needed
    check_port(host, port)
    artifact = find_artifact(run)
    logs = log_folder(run)
    settings = settings.model_copy(
        update={
            "access_log": access_log,
            "timeout_s": timeout_s,
            "log_folder": str(logs) if logs else None,
            "retrieval": retrieval,
            "min_recall": min_recall,
        }
    )
    known = load(artifact, retrieval, min_recall)  # before Ray starts, so that a corrupt artifact fails in a second
    source = find_histories(run, artifact, histories)
    out = Console(stderr=True, highlight=False)
    if known.recall is not None:
        out.print(str(known.recall), markup=False)
    for said in check_histories(source, artifact):
        out.print(said, markup=False)
    out.print(f"starting {known.name} ({known.num_items:,} items) …", markup=False)
    stdout, line, keeping = sys.stdout, line_of(run), item_keeping(artifact, source.events, item_encoders)
    out.print(items_notice(known, keeping), markup=False)
    with (
        redirect_stdout(sys.stderr),  # Ray prints notices
        endpoint(artifact, settings, host, port, replicas, proxy, line, source, keeping),
    ):
        stdout.write(greeting(known, host, port, needs_key=needs_key))
        stdout.flush()
        if block:
            _wait_for_signal()
            out.print("stopping …")


def log_folder(run: Path) -> Path | None:
    """Where the replicas of `run` write their logs: ``RUN/logs``; None, which is standard error, where `run` is no run
    folder or line but a sealed artifact, or cannot be written."""
    folder = run.resolve() / "logs"
    if (run / MANIFEST_FILE).exists():
        return None
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def check_port(host: str, port: int) -> None:
    """Raise UserError unless `host`:`port` can be listened on now."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(address[0], address[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address[4])
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host}:{port}: {reason}; choose another --port, or stop what uses it"
        ) from error


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
        proxy: see `serve`.
        line: a line of releases; replicas follow it, instead of `artifact`, and its releases are driven here.
        histories: where those of users are.
        keeping: where new items are kept and read; None where none are taken.

    Raises:
        StageError: it does not start; the reason is chained.
    """
    folder = Path(tempfile.mkdtemp(prefix="dserve"))  # private (0700): sockets and state of the proxy
    try:
        os.environ.update(_proxy_environment(proxy, folder, settings))
        if not os.environ.get("RAY_ADDRESS"):
            settings = settings.model_copy(update={"metrics_folder": str(folder / "metrics")})
        from pipelines.ray_session import ray_session  # after the environment is set: Ray Serve reads it on import

        with (
            ray_session(_cluster(replicas)),
            _application(artifact, settings, host, port, replicas, line, histories, keeping),
            driven(line) if line else nullcontext(),
        ):
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
def _application(
    artifact: Path,
    settings: Settings,
    host: str,
    port: int,
    replicas: int,
    line: Line | None,
    histories: HistorySource,
    keeping: ItemKeeping | None,
) -> Iterator[None]:
    from ray import serve as ray_serve
    from ray.exceptions import RayError
    from ray.serve.config import ProxyLocation

    from serve.endpoint import APP_NAME, build

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
            ray_serve.run(
                build(str(artifact), settings, replicas, str(line.folder) if line else None, histories, keeping),
                name=APP_NAME,
                route_prefix="/",
            )
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


def greeting(recommender: Recommender, host: str, port: int, *, needs_key: bool = False) -> str:
    """The address and a request that works: its history is the catalogue's three most frequent items."""
    here = {"0.0.0.0": "127.0.0.1"}  # noqa: S104 - compared, not bound
    shown = f"[{host}]" if ":" in host else here.get(host, host)
    url = f"http://{shown}:{port}"
    body = json.dumps({"history": recommender.item_ids[:3], "k": 5}, ensure_ascii=False)
    key = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if needs_key else ""
    return (
        f"{recommender.name} answers at {url}   (try it there; API at {url}/docs; Ctrl-C stops)\n\n"
        f"  curl -s {url}/v1/recommend -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}\n\n"
    )


def _wait_for_signal() -> None:
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    stop.wait()
