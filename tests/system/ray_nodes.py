"""Ray nodes as people start them, several on this machine: a token and folders of their own, loopback only."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx

RAY = Path(sys.executable).with_name("ray")
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_API_SERVER_ADDRESS", "PYTHONPATH")
START_SECONDS = 200.0
STARTS = 3  # on a busy machine a part of Ray may give up waiting for another


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
        command = [str(RAY), "start", "--block", *place, *ports, *size, *free]
        for attempt in range(STARTS):
            with (self.folder / f"node-{len(self._processes)}.log").open("wb") as log:
                process = subprocess.Popen(
                    command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            if self._alive(process, len(self._processes) + 1):
                self._processes.append(process)
                return
            process.terminate()
            process.wait()
            assert attempt < STARTS - 1, f"the node did not start: {self.logs()}"

    def _alive(self, process: subprocess.Popen[bytes], count: int) -> bool:
        """Whether the dashboard comes to know so many live nodes before the process ends or time is over."""
        headers = {"Authorization": f"Bearer {(self.folder / 'token').read_text()}"}
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(headers=headers, timeout=START_SECONDS, base_url=self.url) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):  # nobody listens yet
                    answer = client.get("/api/v0/nodes", params={"detail": 1})
                    listed = answer.json()["data"]["result"]["result"] if answer.status_code == 200 else []
                    if sum(node["state"] == "ALIVE" for node in listed) >= count:
                        return True
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                    return False
        return False

    def logs(self) -> str:
        """What the nodes said."""
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in sorted(self.folder.glob("node-*.log")))

    def run(self, *command: str, timeout: float = 1800.0, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of somebody who uses the cluster."""
        environment = {**self.environment, **variables}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, cwd=self.folder, check=False
        )
