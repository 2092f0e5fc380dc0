"""The load generator against a small server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.serving import wrk
from benchmarks.serving.load import ERROR, Load, LoadResult, Meanwhile
from benchmarks.serving.overload import misses
from benchmarks.serving.processes import growth


class Server:
    """Answers POST requests with the next of `statuses`, then with 200; a status of 0 cuts the connection."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.heads, self.bodies = list(statuses), list[str](), list[Any]()
        self.url = ""

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # the client went away
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = next(int(line.split(":")[1]) for line in head.splitlines() if "content-length" in line.lower())
                self.bodies.append(json.loads(await reader.readexactly(length)))
                self.heads.append(head)
                status = self.statuses.pop(0) if self.statuses else 200
                if not status:
                    break
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % status)
        writer.close()


@contextlib.contextmanager
def serving(*statuses: int) -> Iterator[Server]:
    server, loop, ready = Server(list(statuses)), asyncio.new_event_loop(), threading.Event()

    async def main() -> None:
        listening = await asyncio.start_server(server._talk, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ask"
        ready.set()
        await stopped.wait()
        listening.close()

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield server
    loop.call_soon_threadsafe(stopped.set)
    thread.join(30)


CLIENTS = ["sockets", pytest.param("wrk", marks=pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is missing"))]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_closed_loop_sends_all_bodies_in_turn_and_counts_statuses(client: Any) -> None:
    with serving(429, 429, 503) as server:
        result = Load(server.url, [b'{"n": 1}', b'{"n": 2}'], 1, 1.0, key="secret", client=client).run()
    assert result.statuses["429"] == 2
    assert result.statuses["503"] == 1
    assert result.requests - 3 == result.good > 0
    assert {tuple(body["n"] for body in server.bodies[place : place + 2]) for place in (0, 2)} <= {(1, 2), (2, 1)}
    assert "POST /ask HTTP/1.1" in server.heads[0]
    assert "Authorization: Bearer secret" in server.heads[0]
    assert 0 < result.p50_ms <= result.p95_ms <= result.p99_ms <= result.max_ms
    assert result.success == pytest.approx(1 - 3 / result.requests)


def test_an_open_loop_sends_what_was_asked_for() -> None:
    with serving() as server:
        result = Load(server.url, b"{}", 4, 0.5, rate=60).run()
    assert result.statuses == {"200": 30}
    assert result.seconds >= 29 / 60


def test_a_failed_request_is_sent_once_more_and_one_that_is_shed_is_not() -> None:
    with serving(0, 500, 500, 429) as server:
        result = Load(server.url, b"{}", 1, 0.1, rate=40, retries=1).run()
    assert result.statuses == {"200": 2, "429": 1, "500": 1}
    assert result.retried == 2


def test_cut_connections_and_closed_ports_are_errors() -> None:
    with serving(0) as server:
        result = Load(server.url, b"{}", 1, 0.05, rate=40).run()
    assert result.statuses == {ERROR: 1, "200": 1}
    assert Load(server.url, b"{}", 1, 0.05, rate=40).run().statuses == {ERROR: 2}


@pytest.mark.parametrize("rate", [None, 200.0])
def test_a_load_lasts_as_long_as_its_block(rate: float | None) -> None:
    with serving() as server:
        with Meanwhile(Load(server.url, b"{}", 2, 60, rate=rate)) as visitors:
            while len(server.bodies) < 20:
                threading.Event().wait(0.01)
        asked = len(server.bodies)
    assert visitors.result.requests == visitors.result.good == asked >= 20
    assert visitors.result.seconds < 60


def test_a_load_that_was_over_before_its_block_is_no_load() -> None:
    with serving() as server:
        visitors = Meanwhile(Load(server.url, b"{}", 1, 0.01))
        with pytest.raises(RuntimeError, match="over before its block"), visitors:
            visitors._thread.join(30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 301}, "seconds must be in"),
        ({"seconds": 0}, "seconds must be in"),
        ({"connections": 0}, "connections must be at least 1"),
        ({"rate": 0}, "rate must be positive"),
        ({"url": "http://example.org/"}, "this machine"),
        ({"url": "https://127.0.0.1/"}, "http://"),
        ({"body": []}, "at least one body"),
        ({"client": "wrk", "rate": 1.0}, "wrk knows no rate"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Load(**{"url": "http://127.0.0.1:1/", "body": b"{}"} | arguments)


def test_what_wrk_says_when_it_fails_is_quoted() -> None:
    with pytest.raises(RuntimeError, match="unable to connect"):
        wrk.parse("", "unable to connect to 127.0.0.1")


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Load("http://127.0.0.1:1/", b"{}", key="secret"))


def test_growth_compares_the_end_with_the_time_after_warm_up() -> None:
    assert growth([10.0, *[100.0] * 8, 110.0]) == 0.1
    assert growth([100.0]) == 0.0


def test_every_miss_of_an_overload_is_named() -> None:
    answered = LoadResult(1.0, {"200": 5, "500": 1}, 1, 1, 1, 1).as_dict()
    after = LoadResult(1.0, {"503": 1}, 1, 1, 1, 1).as_dict()
    found = {"overloaded": answered, "p99_ratio": 4.0, "growth": 0.06, "after": after}
    told = misses(found)
    assert [word in text for word, text in zip(("500", "4.0 x", "6.0%", "503"), told, strict=True)] == [True] * 4
    good = LoadResult(1.0, {"200": 5, "429": 1}, 1, 1, 1, 1).as_dict()
    assert misses({"overloaded": good, "p99_ratio": 3.0, "growth": 0.05, "after": {"success": 1}}) == []
