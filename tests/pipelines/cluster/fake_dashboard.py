"""A server on loopback that answers as the dashboard of a cluster does, or as something else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ray

NODES = [{"state": "ALIVE", "resources_total": {"CPU": 4.0, "memory": 8e9}}, {"state": "DEAD", "resources_total": {}}]
ANSWERS: dict[str, Any] = {
    "/api/version": {"version": "4", "ray_version": ray.__version__},
    "/api/jobs/": [],
    "/api/v0/nodes": {"data": {"result": {"result": NODES}}},
}


@contextmanager
def dashboard(answers: Mapping[str, Any] = ANSWERS, token: str = "", kind: str = "application/json") -> Iterator[str]:
    """Its URL; with `token` everything but the version asks for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            allowed = not token or path == "/api/version" or self.headers.get("Authorization") == f"Bearer {token}"
            status = 401 if not allowed else 200 if path in answers else 404
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(path, {})).encode() if status == 200 else b"{}")

        def log_message(self, format: str, *arguments: Any) -> None:
            """Tests need no log of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
