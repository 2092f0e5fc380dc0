from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serve.histories.servers import RedisServer


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Starts servers that end with the test, however it ends."""
    servers: list[RedisServer] = []

    def start(*arguments: Any, **options: Any) -> RedisServer:
        servers.append(RedisServer(*arguments, **options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
