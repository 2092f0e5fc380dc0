"""``distilrec serve`` of a finished stream: an endpoint that learns from the ratings that it is sent."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from components.artifacts.format import verify
from components.errors import UserError
from pipelines.serving.command import check_port, wait_for_signal
from pipelines.serving.endpoint import Proxy, running
from serve.histories.source import is_redis
from serve.settings import KEY_VARIABLE, AccessLog, Settings, access
from serve.stream.identities import read_items, read_users

SERVING: Final = "serving"


def serve_stream(
    artifact: Path,
    host: str,
    port: int,
    replicas: int = 1,
    proxy: Proxy = "auto",
    histories: str | None = None,
    keys: Path | None = None,
    access_log: AccessLog = "json",
    timeout_s: float = 10.0,
    *,
    block: bool = True,
) -> None:
    """Serve a finished stream until Ctrl-C or SIGTERM; what it learned is kept beside its events.

    Args:
        artifact: such as ``runs/NAME/stream/esapn/seed-0``.
        host: see `pipelines.serving.endpoint.serve`, as the others that are not named here.
        port: where to listen.
        replicas: 1: a single process learns, so that events keep their order.
        proxy: of Ray Serve.
        histories: a folder for events and what was learned of them; see `learning_folder`.
        keys: a file of API keys.
        access_log: ``"json"`` or ``"off"``.
        timeout_s: how long an answer may take.
        block: False returns as soon as the endpoint answers, and stops it; for checks.

    Raises:
        UserError: the port is taken, the host would be open to everybody, or events have no place.
        ArtifactError: the artifact is damaged.
        StageError: the endpoint does not start.
    """
    if replicas != 1:
        raise UserError(f"--replicas {replicas}: a stream is learned by one process; leave the option out")
    settings = access(host, os.environ.get(KEY_VARIABLE), str(keys.resolve()) if keys else None)
    check_port(host, port)
    verify(artifact)
    folder = learning_folder(artifact, histories)
    settings = settings.model_copy(update={"access_log": access_log, "timeout_s": timeout_s})
    out = Console(stderr=True, highlight=False)
    out.print(f"starting the stream {artifact}; events and what is learned: {folder} …", markup=False, soft_wrap=True)

    def make(known: Settings) -> Any:
        from serve.stream.endpoint import build_stream

        return build_stream(str(artifact.resolve()), known, str(folder))

    stdout = sys.stdout
    with redirect_stdout(sys.stderr), running(make, settings, host, port, 1, proxy):  # Ray prints notices
        stdout.write(_greeting(artifact, host, port, bool(settings.key_hash or settings.keys_file)))
        stdout.flush()
        if block:
            wait_for_signal()
            out.print("stopping …")


def learning_folder(artifact: Path, histories: str | None) -> Path:
    """Where events are kept: `histories`, or below the run that the stream belongs to.

    Raises:
        UserError: there is no such run, or `histories` is no folder.
    """
    if histories is not None:
        if is_redis(histories):
            raise UserError("--histories: the events of a stream are kept in a folder, not in Redis; name a folder")
        return Path(histories).absolute()
    place = artifact.resolve()
    run = place.parents[2]  # RUN/stream/METHOD/seed-S
    if not (run / "prepare").is_dir():
        raise UserError(f"{artifact}: lies in no run, so events have no place; name a folder with --histories FOLDER")
    return run / SERVING / f"{place.parent.name}-{place.name}"


def _greeting(artifact: Path, host: str, port: int, needs_key: bool) -> str:
    shown = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    url, key = f"http://{shown}:{port}", f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if needs_key else ""
    user, item = read_users(artifact)[0], read_items(artifact)[0][0]
    event = {"user_id": user, "item_id": item, "value": 4}
    head = f"  curl -s {url}%s -H 'Content-Type: application/json'{key} -d %s\n"
    bodies = [("/v1/recommend", {"user_id": user, "k": 5}), ("/v1/events", event)]
    lines = [head % (path, shlex.quote(json.dumps(body, ensure_ascii=False))) for path, body in bodies]
    return f"the stream answers and learns at {url}   (API: {url}/openapi.json; Ctrl-C stops)\n\n{''.join(lines)}\n"
