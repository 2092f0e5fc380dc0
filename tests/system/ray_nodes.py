"""Ray nodes as people start them, several on this machine: a token and folders of their own, loopback only."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx

RAY = Path(sys.executable).with_name("ray")
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_API_SERVER_ADDRESS", "PYTHONPATH")
START_SECONDS = 300.0


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Nodes:
    """A head and further nodes.

    Attributes:
        url: of the dashboard.
        environment: of a process that talks to the cluster.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rn"))  # short: sockets lie in it
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.gcs, dashboard = free_ports(2)
        self.dashboard_port, self.url = dashboard, f"http://127.0.0.1:{dashboard}"
        own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        path = f"{RAY.parent}{os.pathsep}{own.get('PATH', '')}"
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.environment = {**own, "PATH": path, **auth, **(environment or {})}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        for process in reversed(self._processes):
            process.terminate()  # `--block` then ends its node
        for process in self._processes:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, cpus: int, resources: Mapping[str, float], scratch: str = "") -> None:
        """Start a node; the first one is the head. With `scratch` it works on a disk of its own."""
        agent, grpc, runtime, client = free_ports(4)
        if self._processes:
            place = [f"--address=127.0.0.1:{self.gcs}", f"--runtime-env-agent-port={runtime}"]
        else:
            place = ["--head", f"--port={self.gcs}", "--dashboard-host=127.0.0.1"]
            place += [f"--dashboard-port={self.dashboard_port}", f"--ray-client-server-port={client}"]
            place += [f"--temp-dir={self.folder / 'r'}"]
        ports = [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
        size = [f"--num-cpus={cpus}", "--object-store-memory=150000000", f"--resources={json.dumps(dict(resources))}"]
        free = ["--min-worker-port=0", "--max-worker-port=0"]
        environment = self.environment | ({"DISTILREC_SCRATCH": str(self.folder / scratch)} if scratch else {})
        with (self.folder / f"node-{len(self._processes)}.log").open("wb") as log:
            command = [str(RAY), "start", "--block", *place, *ports, *size, *free]
            self._processes.append(
                subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
        self._wait(len(self._processes))

    def _wait(self, count: int) -> None:
        """Until the dashboard knows so many live nodes."""
        token = (self.folder / "token").read_text()
        headers = {"Authorization": f"Bearer {token}"}
        transport = httpx.HTTPTransport(retries=12)  # waits twice as long every time
        with httpx.Client(transport=transport, headers=headers, timeout=START_SECONDS, base_url=self.url) as client:
            for _ in range(1000):
                answer = client.get("/api/v0/nodes", params={"detail": 1})
                if answer.status_code == 200:
                    listed = answer.json()["data"]["result"]["result"]
                    if sum(node["state"] == "ALIVE" for node in listed) >= count:
                        return
                assert all(process.poll() is None for process in self._processes), self.logs()
        raise AssertionError(f"{count} nodes did not start: {self.logs()}")

    def logs(self) -> str:
        """What the nodes said."""
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in sorted(self.folder.glob("node-*.log")))

    def run(self, *command: str, timeout: float = 1800.0, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of somebody who uses the cluster."""
        environment = {**self.environment, **variables}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, cwd=self.folder, check=False
        )
