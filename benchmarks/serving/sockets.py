"""The load generator in Python: raw HTTP/1.1 over asyncio, for open loops, retries, and machines without wrk."""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import numpy as np

if TYPE_CHECKING:
    from benchmarks.serving.load import Load, LoadResult

NO_ANSWER: Final = 0
RETRY_AFTER_S: Final = 0.05
ACCEPTED: Final = (200, 429)  # 429 says "not now"; sending again at once is what it asks not to do


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self.transport is not None and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future gives the status, `NO_ANSWER` where the connection is cut."""
        assert self.transport is not None
        self._received, self._answer = b"", asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Part of an answer; it is whole once its declared length is there."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _content_length(head)
        if length is not None and len(body) >= length:
            self._end(int(head[9:12]))
            if b"connection: close" in head.lower() and self.transport is not None:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer without a length ends here; otherwise it was cut."""
        head, separator, _ = self._received.partition(b"\r\n\r\n")
        whole = bool(separator) and _content_length(head) is None
        self._end(int(head[9:12]) if whole else NO_ANSWER)

    def _end(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


def _content_length(head: bytes) -> int | None:
    place = head.lower().find(b"content-length:")
    return None if place < 0 else int(head[place + 15 :].split(b"\r\n", 1)[0])


@dataclass
class _Run:
    """The state of one load."""

    load: Load
    requests: list[bytes]
    stop: threading.Event
    free: list[Connection] = field(default_factory=list)
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    retried: int = 0
    sent: int = 0

    async def one(self, due: float) -> None:
        """Send the next request, again where that is allowed, and count how it ended."""
        request = self.requests[self.sent % len(self.requests)]
        self.sent += 1
        status = await self._send(request)
        for _ in range(self.load.retries):
            if status in ACCEPTED:
                break
            self.retried += 1
            await asyncio.sleep(RETRY_AFTER_S)
            status = await self._send(request)
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - due)

    async def _send(self, request: bytes) -> int:
        connection = None
        try:
            async with asyncio.timeout(self.load.timeout_s):
                connection = await self._connection()
                status = await connection.ask(request)
        except (OSError, TimeoutError):
            if connection is not None and connection.transport is not None:
                connection.transport.abort()
            return NO_ANSWER
        if connection.is_open:
            self.free.append(connection)
        return status

    async def _connection(self) -> Connection:
        while self.free:
            connection = self.free.pop()
            if connection.is_open:
                return connection
        parts = urlsplit(self.load.url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, parts.hostname or "", parts.port or 80)
        return connection


def run(load: Load, stop: threading.Event | None = None) -> LoadResult:
    """Run the load in an event loop of its own, until `stop` at the latest."""
    return asyncio.run(_run(load, stop or threading.Event()))


async def _run(load: Load, stop: threading.Event) -> LoadResult:
    run = _Run(load, [_request(load, body) for body in load.bodies], stop)
    started = time.perf_counter()
    await (_closed(run, started) if load.rate is None else _open(run, started, load.rate))
    seconds = time.perf_counter() - started
    for connection in run.free:
        if connection.transport is not None:
            connection.transport.close()
    return _result(run, seconds)


async def _closed(run: _Run, started: float) -> None:
    async def again() -> None:
        while (now := time.perf_counter()) - started < run.load.seconds and not run.stop.is_set():
            await run.one(now)

    await asyncio.gather(*(again() for _ in range(run.load.connections)))


async def _open(run: _Run, started: float, rate: float) -> None:
    """Requests fall due one after another, whatever became of those before; a slot short, they wait for one."""
    slots, running = asyncio.Semaphore(run.load.connections), set[asyncio.Task[None]]()
    for number in range(int(rate * run.load.seconds)):
        due = started + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if run.stop.is_set():
            break
        await slots.acquire()
        task = asyncio.create_task(run.one(due))
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(lambda _: slots.release())
    await asyncio.gather(*running)


def _request(load: Load, body: bytes) -> bytes:
    parts = urlsplit(load.url)
    key = f"Authorization: Bearer {load.key}\r\n" if load.key else ""
    head = (
        f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{key}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _result(run: _Run, seconds: float) -> LoadResult:
    from benchmarks.serving.load import ERROR, LoadResult

    statuses = {ERROR if status == NO_ANSWER else str(status): count for status, count in sorted(run.statuses.items())}
    times = 1e3 * np.array(run.seconds or [float("nan")])
    p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
    return LoadResult(seconds, statuses, p50, p95, p99, float(times.max()), run.retried)
