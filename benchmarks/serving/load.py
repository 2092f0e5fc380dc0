"""A bounded load generator: N connections that ask as fast as they are answered, or requests at a given rate.

>>> Load("http://127.0.0.1:8000/v1/recommend", b'{"history": []}', connections=0)
Traceback (most recent call last):
    ...
ValueError: connections must be at least 1, got 0
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

MAX_SECONDS: Final = 300
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
ERROR: Final = "error"  # where a status would stand: refused, cut off, or not answered in time


@dataclass(frozen=True)
class LoadResult:
    """What a load met.

    Attributes:
        seconds: from the first request to the last answer.
        statuses: answers by HTTP status; `ERROR` counts requests without one. With retries, the last answer counts.
        p50_ms: of answers with status 200; an open loop counts from when a request was due, so that waiting counts.
        p95_ms: the same.
        p99_ms: the same.
        max_ms: the same.
        retried: requests that were sent a second time.
    """

    seconds: float
    statuses: dict[str, int]
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    retried: int = 0

    @property
    def requests(self) -> int:
        """Requests that came to an end, whatever it was."""
        return sum(self.statuses.values())

    @property
    def good(self) -> int:
        """Requests that were answered with 200."""
        return self.statuses.get("200", 0)

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return self.good / self.seconds if self.seconds else 0.0

    @property
    def success(self) -> float:
        """Share of good answers."""
        return self.good / self.requests if self.requests else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**vars(self), "requests": self.requests, "rate": self.rate, "success": self.success}


@dataclass(frozen=True)
class Load:
    """A load on one URL of this machine.

    Args:
        url: with POST.
        body: a JSON body, or several that are sent in turn.
        connections: kept open; in an open loop the most that may wait at once.
        seconds: at most `MAX_SECONDS`.
        rate: requests per second of an open loop; None: each connection asks again once it is answered.
        retries: how often a request without a good answer is sent again; 429 is an answer and not sent again.
        timeout_s: after which a request counts as `ERROR`.
        key: API key.
        client: ``"wrk"`` costs the machine least and knows closed loops without retries alone; ``"sockets"`` is
            Python; ``"auto"`` takes wrk where it is there and fits.

    Raises:
        ValueError: an argument is out of bounds, or the URL leads to another machine.
    """

    url: str
    body: bytes | Sequence[bytes]
    connections: int = 32
    seconds: float = 10.0
    rate: float | None = None
    retries: int = 0
    timeout_s: float = 30.0
    key: str | None = field(default=None, repr=False)
    client: Literal["auto", "wrk", "sockets"] = "auto"

    def __post_init__(self) -> None:
        if self.connections < 1:
            raise ValueError(f"connections must be at least 1, got {self.connections}")
        if not 0 < self.seconds <= MAX_SECONDS:
            raise ValueError(f"seconds must be in (0, {MAX_SECONDS}], got {self.seconds}")
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"rate must be positive, got {self.rate}")
        if urlsplit(self.url).scheme != "http" or urlsplit(self.url).hostname not in LOOPBACK:
            raise ValueError(f"url must be http:// and lead to this machine, got {self.url}")
        if not self.bodies:
            raise ValueError("body must hold at least one body, got none")
        if self.client == "wrk" and not self._fits_wrk:
            raise ValueError("client: wrk knows no rate and no retries; use sockets")

    @property
    def bodies(self) -> list[bytes]:
        """What is sent in turn."""
        return [self.body] if isinstance(self.body, bytes) else list(self.body)

    @property
    def _fits_wrk(self) -> bool:
        return self.rate is None and self.retries == 0

    def run(self) -> LoadResult:
        """Load the URL; blocks for `seconds` and a little more."""
        from benchmarks.serving import sockets, wrk

        if self.client == "wrk" or (self.client == "auto" and self._fits_wrk and shutil.which("wrk")):
            return wrk.run(self)
        return sockets.run(self)


class Meanwhile(AbstractContextManager["Meanwhile"]):
    """A load that lasts as long as its block does, by the client in Python.

    >>> with Meanwhile(Load(url, body, connections=4, seconds=300)) as visitors:   # doctest: +SKIP
    ...     release_something()
    >>> visitors.result.success                                                    # doctest: +SKIP

    Args:
        load: its `seconds` are the most that the block may take.

    Attributes:
        result: when the block has ended.

    Raises:
        RuntimeError: at the end of a block that took longer: the load was over before it.
    """

    result: LoadResult

    def __init__(self, load: Load) -> None:
        self._load, self._stop = load, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Meanwhile:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        over = not self._thread.is_alive()
        self._stop.set()
        self._thread.join()
        if over and kind is None:
            raise RuntimeError(f"the load was over before its block: that took longer than {self._load.seconds:g} s")

    def _run(self) -> None:
        from benchmarks.serving import sockets

        self.result = sockets.run(self._load, self._stop)
