"""``distilrec serve``: what is checked and said before an endpoint starts, and after."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from components.errors import UserError
from components.recommender import MIN_RECALL, Recommender, Retrieval
from components.schema import MANIFEST_FILE
from pipelines.served import find_artifact
from pipelines.serving.endpoint import Proxy, endpoint
from pipelines.serving.histories import check_histories, find_histories
from pipelines.serving.item_encoder import item_keeping, items_notice
from serve.histories.source import HistorySource
from serve.item_source import ItemKeeping
from serve.keys import Keys
from serve.loading import load
from serve.release.line import line_of
from serve.settings import KEY_VARIABLE, AccessLog, Settings, access


@dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
        host: where to listen; anything but loopback needs `keys` or an API key in the environment (DISTILREC_API_KEY).
        port: where to listen.
        replicas: processes that answer.
        proxy: see `pipelines.serving.endpoint.endpoint`.
        histories: where events are kept, see `pipelines.serving.histories.find_histories`.
        keys: a file of API keys, see `serve.keys.read_keys`; changes of it count without a restart.
        access_log: ``"json"`` writes a line per request into the logs, see `log_folder`.
        timeout_s: how long an answer may take.
        item_encoders: a run whose encoders and teachers read texts of new items; by default the run that is served.
        retrieval: ``"faiss"`` ranks candidates of an index alone; its recall is measured at the start.
        min_recall: below which that does not start.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    proxy: Proxy = "auto"
    histories: str | None = None
    keys: Path | None = None
    access_log: AccessLog = "json"
    timeout_s: float = 10.0
    item_encoders: Path | None = None
    retrieval: Retrieval = "exact"
    min_recall: float = MIN_RECALL


def serve(run: Path, options: ServeOptions | None = None, *, block: bool = True) -> None:
    """Serve an artifact until Ctrl-C or SIGTERM, then stop after the requests in flight are answered.

    The API key is taken out of the environment, so that no process of Ray inherits it.

    Args:
        run: a run or an artifact, see `pipelines.served.find_artifact`.
        options: how.
        block: False returns as soon as the endpoint answers, and stops it; for checks.

    Raises:
        UserError: no artifact there, the port is taken, the host would be open to everybody, events have no place, or
            approximate retrieval is not possible or finds too little.
        ArtifactError: the artifact is corrupt, or answers otherwise than where it was made.
        StageError: the endpoint does not start.
    """
    options = options or ServeOptions()
    settings = settings_of(options, os.environ.pop(KEY_VARIABLE, None))
    needs_key = Keys(settings).needed
    check_port(options.host, options.port)
    artifact, logs = find_artifact(run), log_folder(run)
    settings = settings.model_copy(update={"log_folder": str(logs) if logs else None})
    out = Console(stderr=True, highlight=False)
    histories = find_histories(run, artifact, options.histories)
    hello, keeping = _checked(artifact, options, histories, out, needs_key=needs_key)
    stdout, line = sys.stdout, line_of(run)
    with (
        redirect_stdout(sys.stderr),  # Ray prints notices
        endpoint(
            artifact, settings, options.host, options.port, options.replicas, options.proxy, line, histories, keeping
        ),
    ):
        stdout.write(hello)
        stdout.flush()
        if block:
            wait_for_signal()
            out.print("stopping …")


def settings_of(options: ServeOptions, key: str | None) -> Settings:
    """What replicas are told, of the options and the environment's key.

    Raises:
        ConfigError: other machines could reach the endpoint and there is no key.
    """
    changed = {
        "access_log": options.access_log,
        "timeout_s": options.timeout_s,
        "retrieval": options.retrieval,
        "min_recall": options.min_recall,
    }
    keys_file = str(options.keys.resolve()) if options.keys else None
    return access(options.host, key, keys_file).model_copy(update=changed)


def _checked(
    artifact: Path,
    options: ServeOptions,
    histories: HistorySource,
    out: Console,
    *,
    needs_key: bool,
) -> tuple[str, ItemKeeping | None]:
    """Load the artifact and let go of it again, before Ray starts, so that a corrupt one fails in a second; say what
    will answer. Returns the greeting, and where new items are kept."""
    known = load(artifact, options.retrieval, options.min_recall)
    if known.recall is not None:
        out.print(str(known.recall), markup=False)
    for said in check_histories(histories, artifact):
        out.print(said, markup=False)
    out.print(f"starting {known.name} ({known.num_items:,} items) …", markup=False)
    keeping = item_keeping(artifact, histories.events, options.item_encoders)
    out.print(items_notice(known, keeping), markup=False)
    return greeting(known, options.host, options.port, needs_key=needs_key), keeping


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


def wait_for_signal() -> None:
    """Wait for SIGINT or SIGTERM."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    stop.wait()
