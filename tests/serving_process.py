"""An endpoint in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """``distilrec serve``; it answers inside the block."""

    def __init__(self, run: Path, proxy: str = "auto", replicas: int = 1) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        options = f"ServeOptions(port={self.port}, replicas={replicas}, proxy={proxy!r})"
        call = f"serve(Path({str(run)!r}), {options})"
        code = f"from pathlib import Path; from pipelines.serving.command import ServeOptions, serve; {call}"
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
        environment.pop("RAY_ADDRESS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True
        )

    def __enter__(self) -> Served:
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        assert self.url in self.first, "the endpoint did not start"
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
