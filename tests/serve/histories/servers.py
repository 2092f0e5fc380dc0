"""A real Redis server on a free loopback port, for tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

DEADLINE_S = 30.0
StartRedis = Callable[..., "RedisServer"]


class RedisServer:
    """One server that may be stopped and started again; it persists every write unless told otherwise."""

    def __init__(self, folder: Path, *, appendonly: str = "yes", password: str = "") -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("redis-server is not installed")
        pytest.importorskip("redis", reason="the package of the extra `redis` is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        user = f":{password}@" if password else ""
        self.url = f"redis://{user}127.0.0.1:{self.port}/0"
        options = {"port": self.port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": appendonly}
        options |= {"appendfsync": "always", **({"requirepass": password} if password else {})}
        self._command = [binary, *(str(word) for key, value in options.items() for word in (f"--{key}", value))]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server does not answer"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))  # not while it loads
        except OSError:
            return False
