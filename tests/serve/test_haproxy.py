from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.haproxy import LIMIT, REFUSED_FOR_S, STARTED_WITH, binary, environment
from serve.settings import Settings


def test_statistics_and_metrics_are_fenced_into_loopback(tmp_path: Path) -> None:
    """The script rewrites the configuration that Ray Serve generates, and then becomes the binary."""
    config = tmp_path / "node" / "haproxy.cfg"
    config.parent.mkdir()
    config.write_text(
        "frontend prometheus\n    bind :9101\nfrontend http\n    bind 127.0.0.1:8000\nlisten stats\n  bind *:8404\n"
    )
    started = environment(Path("/bin/echo"), tmp_path, Settings())[STARTED_WITH]
    done = subprocess.run([started, "-db", "-f", str(config), "-sf", "7"], capture_output=True, text=True, check=True)
    assert done.stdout == f"-db -f {config} -sf 7\n"
    lines = [line.strip() for line in config.read_text().splitlines() if "bind" in line]
    assert lines == ["bind 127.0.0.1:9101", "bind 127.0.0.1:8000", "bind 127.0.0.1:8404"]


def test_clients_have_limited_time_for_the_head_of_a_request(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("defaults\n    mode http\n    option log-health-checks\n    timeout client 60s\n")
    variables = environment(Path("/bin/echo"), tmp_path, Settings(body_timeout_s=10.5, timeout_s=10))
    subprocess.run([variables[STARTED_WITH], "-f", str(config)], capture_output=True, check=True)
    assert "    option log-health-checks\n    timeout http-request 10s\n    timeout client" in config.read_text()
    assert variables["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"] == "26"  # later than the application's own limit


@pytest.fixture
def replica() -> Iterator[ThreadingHTTPServer]:
    """Refuses the first request, with room for one; holds others until `release` is set, but for probes."""
    refused, release, arrived = threading.Event(), threading.Event(), threading.Semaphore(0)

    class Replica(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrived.release()
            refuses = not refused.is_set()
            refused.set()
            assert refuses or self.path == "/healthz" or release.wait(60)
            self.send_response(429 if refuses else 200)
            if refuses:
                self.send_header(LIMIT, "1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
    server.release, server.arrived = release, arrived  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    release.set()
    server.shutdown()


@pytest.fixture
def proxy(replica: ThreadingHTTPServer, tmp_path: Path) -> Iterator[str]:
    """The address of HAProxy before the replica, started as Ray Serve starts it."""
    path = binary()
    if path is None:
        pytest.skip("no HAProxy here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "global\n  maxconn 100\ndefaults\n  mode http\n    option log-health-checks\n"
        "  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"frontend http\n  bind 127.0.0.1:{port}\n  default_backend app\n"
        f"backend app\n    http-reuse always\n  server one 127.0.0.1:{replica.server_port}\n"
    )
    started = environment(path, tmp_path, Settings(retry_after_s=7))[STARTED_WITH]
    running = subprocess.Popen([started, "-db", "-f", str(config)])
    wait_for_port(port)
    yield f"http://127.0.0.1:{port}"
    running.terminate()
    running.wait()


def test_haproxy_refuses_for_a_replica_that_refused(replica: Any, proxy: str) -> None:
    first = httpx.get(f"{proxy}/v1/recommend")
    assert first.status_code == 429
    assert LIMIT not in first.headers
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(httpx.get, f"{proxy}/v1/recommend", timeout=60)
        for _ in range(2):
            assert replica.arrived.acquire(timeout=60)
        refused = httpx.get(f"{proxy}/v1/recommend")
        probed = httpx.get(f"{proxy}/healthz")
        replica.release.set()
        assert held.result().status_code == 200
    assert (refused.status_code, probed.status_code) == (429, 200)
    message = "too many requests at once; try again in 7 s"
    assert refused.json() == {"code": "overloaded", "message": message, "field": None}
    assert refused.headers["retry-after"] == "7"
    assert len(refused.headers["x-request-id"]) > 10


def test_haproxy_lets_everybody_in_where_no_replica_refused(replica: Any, proxy: str) -> None:
    replica.release.set()
    httpx.get(f"{proxy}/healthz")  # the one that is refused
    time_over = time.monotonic() + REFUSED_FOR_S
    while time.monotonic() < time_over:
        httpx.get(f"{proxy}/healthz")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(httpx.get, [f"{proxy}/v1/recommend"] * 8))
    assert {answer.status_code for answer in answers} == {200}


def wait_for_port(port: int) -> None:
    """Until something listens there."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except ConnectionRefusedError:
            continue
        return


def test_state_stays_in_the_private_folder(tmp_path: Path) -> None:
    variables = environment(Path("/bin/true"), tmp_path, Settings())
    paths = [value for value in variables.values() if value.startswith("/")]
    assert len(paths) == 6
    assert all(Path(path).is_relative_to(tmp_path) for path in paths)
    assert Path(variables[STARTED_WITH]).stat().st_mode & 0o077 == 0


def test_two_instances_use_different_ports(tmp_path: Path) -> None:
    variables = environment(Path("/bin/true"), tmp_path, Settings())
    assert variables["RAY_SERVE_HAPROXY_STATS_PORT"] != variables["RAY_SERVE_HAPROXY_METRICS_PORT"]


def test_a_binary_that_does_not_start_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "haproxy"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setenv(STARTED_WITH, str(broken))
    assert binary() is None
    broken.write_text("#!/bin/sh\nexit 0\n")
    assert binary() == broken
