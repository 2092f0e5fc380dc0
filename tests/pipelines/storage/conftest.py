"""An S3 server on a loopback port, and a place in it for every test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.fs as pafs
import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
START_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):  # nobody listens yet
            httpx.get(f"{url}/moto-api/", timeout=START_SECONDS)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the S3 server ended with {server.wait(0.2)}")
    pytest.fail(f"the S3 server did not answer within {START_SECONDS:g} seconds")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of moto's server; the tests that need it fail where it is not installed, since `make env` installs it."""
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent)) or shutil.which("moto_server")
    if program is None:
        pytest.fail("moto_server is missing; run `make env`")
    port = free_port()
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URI of a folder of its own."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    filesystem = pafs.S3FileSystem(endpoint_override=s3_server, region="us-east-1", allow_bucket_creation=True)
    filesystem.create_dir("bucket")
    return f"s3://bucket/{request.node.name.partition('[')[0]}"


@pytest.fixture(params=["s3", "file"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder in an object store, and one on a disk."""
    return str(request.getfixturevalue("bucket")) if request.param == "s3" else f"file://{tmp_path / 'stored'}"
