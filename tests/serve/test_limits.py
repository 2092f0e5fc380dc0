"""Load, slow and vanishing clients, time limits, request ids, logs: what the guard does around the application."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import Message

from components.recommender import Query, Recommendation, Recommender
from serve.admission import BURST_S, CALM_S, MIN_LIMIT, WINDOW, Admission
from serve.app import create_app
from serve.backend import LocalBackend
from serve.logs import PARENT, open_log
from serve.models import Served
from serve.request_ids import RequestIds
from serve.settings import Settings, hash_key
from serve.workers import Workers
from tests.serve.clients import converse, make_client, never
from tests.tiny_artifact import write_artifact

GOOD = b'{"history": ["id-3"], "k": 2}'


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(write_artifact(tmp_path_factory.mktemp("limits") / "artifact"))


def pieces(*parts: bytes, then: str = "end") -> Any:
    """A client that sends `parts`, and then ends, vanishes or falls silent."""
    left = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if then == "end":
        left[-1]["more_body"] = False
    if then == "vanish":
        left.append({"type": "http.disconnect"})

    async def receive() -> Message:
        return left.pop(0) if left else await never()

    return receive


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_limit_follows_the_measured_capacity() -> None:
    clock = Clock()
    admission = Admission(Settings(max_in_flight=500, target_wait_s=0.5), clock)
    assert admission.limit == 500
    for _ in range(50):
        admission.enter()
        admission.start()
    for _ in range(4 * WINDOW):
        clock.now += 0.01  # 100 answers per second
        admission.leave(True)
        admission.enter()
        admission.start()
    assert admission.limit == pytest.approx(50, abs=1)
    clock.now += 100
    assert admission.full()  # the queue has stood there for long


def test_a_burst_is_let_in_and_a_standing_queue_is_cut() -> None:
    clock = Clock()
    admission = Admission(Settings(max_in_flight=100), clock)
    admission.limit = MIN_LIMIT
    for _ in range(99):
        assert not admission.full()
        admission.enter()
        admission.start()
    clock.now += 2 * BURST_S
    assert admission.full()
    for _ in range(99 - MIN_LIMIT // 2):
        admission.leave(True)
    assert not admission.full()


def arrivals(admission: Admission, count: int) -> int:
    """How many of `count` requests that come at once are let in."""
    let_in = 0
    for _ in range(count):
        if not admission.full():
            admission.enter()
            admission.start()
            let_in += 1
    return let_in


def test_lasting_overload_is_no_series_of_bursts() -> None:
    clock = Clock()
    admission = Admission(Settings(max_in_flight=100), clock)
    admission.limit = MIN_LIMIT
    assert arrivals(admission, 99) == 99
    clock.now += 2 * BURST_S
    assert admission.full()
    for _ in range(99):  # the queue is gone, but the refused clients come again
        admission.leave(True)
    admission.limit = MIN_LIMIT
    assert arrivals(admission, 99) == MIN_LIMIT
    for _ in range(MIN_LIMIT):
        admission.leave(True)
    clock.now += CALM_S
    admission.limit = MIN_LIMIT
    assert arrivals(admission, 99) == 99


def test_idle_time_is_no_lack_of_capacity() -> None:
    clock = Clock()
    admission = Admission(Settings(max_in_flight=500, target_wait_s=0.5), clock)
    for _ in range(2 * WINDOW):
        clock.now += 60
        admission.enter()
        admission.start()
        clock.now += 0.001
        admission.leave(True)
    assert admission.limit == 500


def test_slow_senders_take_no_capacity_but_a_place(recommender: Recommender) -> None:
    admission = Admission(Settings(max_in_flight=3), Clock())
    for _ in range(3):
        assert not admission.full()
        admission.enter()
    assert admission.working == 0
    assert admission.full()
    admission.leave(False)
    assert not admission.full()


def test_a_body_that_does_not_arrive_is_given_up(recommender: Recommender) -> None:
    app = create_app(LocalBackend(recommender), Settings(body_timeout_s=0.1))

    async def both() -> list[Any]:
        slow = await converse(app, pieces(b'{"history": [', then="silence"))
        return [slow, await converse(app, pieces(GOOD))]

    slow, good = asyncio.run(both())
    assert (slow[0], slow[2]["code"]) == (408, "slow_request")
    assert slow[1]["connection"] == "close"
    assert good[0] == 200


def test_a_client_that_vanishes_leaves_nothing_behind(
    recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(LocalBackend(recommender), Settings(max_in_flight=1))

    async def both() -> list[Any]:
        await converse(app, pieces(b'{"history": [', then="vanish"))
        waiting = asyncio.create_task(converse(app, pieces(b"{", then="silence")))
        await asyncio.sleep(0)
        waiting.cancel()  # as Ray Serve does
        await asyncio.wait([waiting])
        return list(await converse(app, pieces(GOOD)))

    assert asyncio.run(both())[0] == 200
    assert "Traceback" not in caplog.text
    text = app.state.telemetry.text().decode()
    assert 'status="499",version=""} 2.0' in text
    assert 'distilrec_in_flight{replica="local"} 0.0' in text


class Stuck(LocalBackend):
    """A model that answers nobody until it is released."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__(recommender)
        self.released, self.calls = threading.Event(), 0
        self.workers = Workers(threads=1)
        self.models.pick_incumbent().recommender = cast(Recommender, Waiting(self, recommender))


class Waiting:
    """A recommender that waits for `Stuck.released` before it answers."""

    def __init__(self, backend: Stuck, recommender: Recommender) -> None:
        self.backend, self.recommender = backend, recommender

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recommender, name)

    def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
        self.backend.calls += 1
        assert self.backend.released.wait(60)
        return self.recommender.answer(queries)


def test_an_answer_that_takes_too_long_is_given_up_and_its_work_dropped(recommender: Recommender) -> None:
    backend = Stuck(recommender)
    app = create_app(backend, Settings(timeout_s=0.1))

    async def ask() -> tuple[list[Any], Any]:
        late = await asyncio.gather(*(converse(app, pieces(GOOD)) for _ in range(20)))
        backend.released.set()
        return late, await converse(app, pieces(GOOD))

    late, good = asyncio.run(ask())
    assert {(status, body["code"]) for status, _, body in late} == {(504, "timeout")}
    assert good[0] == 200
    assert backend.calls == 2  # the one that had begun, and the last


@pytest.mark.parametrize("sent", ["ok-1", "0123:4567/ab+cd=", "x" * 128])
def test_a_sane_request_id_is_kept(recommender: Recommender, sent: str) -> None:
    client = make_client(LocalBackend(recommender))
    answer = client.get("/v1/model", headers={"X-Request-ID": sent})
    assert answer.headers.get_list("x-request-id") == [sent]


@pytest.mark.parametrize("sent", ["", "two words", "x" * 129, "ünicode".encode(), "a\x7f"])
def test_another_request_id_is_replaced(recommender: Recommender, sent: str | bytes) -> None:
    answer = make_client(LocalBackend(recommender)).get("/healthz", headers={"X-Request-ID": sent})
    assert len(answer.headers["x-request-id"]) == 16


def test_every_answer_has_a_request_id(recommender: Recommender) -> None:
    client = make_client(LocalBackend(recommender), max_body_bytes=10)
    closed = make_client(LocalBackend(recommender), key_hash=hash_key("key"))
    answers = [client.get("/"), client.get("/no"), client.post("/v1/recommend", content=b"x" * 11), closed.get("/no")]
    assert [answer.status_code for answer in answers] == [200, 404, 413, 401]
    assert all(answer.headers["x-request-id"] for answer in answers)


def test_ray_serves_own_answers_have_one_request_id_too() -> None:
    async def answers_twice(scope: Any, receive: Any, send: Any) -> None:
        given = dict(scope["headers"])[b"x-request-id"]
        headers = [(b"x-request-id", given), (b"X-Request-ID", given)]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    status, headers, _ = asyncio.run(converse(RequestIds(answers_twice), never, {"x-request-id": "not sane"}))
    assert status == 429
    assert [name for name in headers if name.lower() == "x-request-id"] == ["x-request-id"]
    assert "sane" not in headers["x-request-id"]


class Broken(LocalBackend):
    async def answer_all(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        raise {"lookup": LookupError, "disk": OSError}[queries[0].history[0]](f"about {queries[0].history}")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    open_log(Settings(log_folder=str(tmp_path / "logs")), "r/1")
    yield tmp_path / "logs" / "replica-r_1.jsonl"
    parent = logging.getLogger(PARENT)
    for handler in parent.handlers[:]:
        parent.removeHandler(handler)
        handler.close()
    parent.propagate = True


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_line_per_request_says_what_and_not_who(recommender: Recommender, log: Path) -> None:
    client = make_client(LocalBackend(recommender), access_log="json", key_hash=hash_key("s3cret"))
    body = {"history": ["id-7", "private-item"]}
    client.post("/v1/recommend?x=private", json=body, headers={"X-API-Key": "s3cret", "X-Request-ID": "r-1"})
    client.post("/v1/recommend", json=body, headers={"X-API-Key": "wr0ng"})
    good, bad = lines(log)
    version = recommender.name.rpartition("@")[2]
    assert good.pop("ms") > 0
    assert good.pop("time").endswith("Z")
    assert good == {
        "level": "info",
        "replica": "r/1",
        "request_id": "r-1",
        "method": "POST",
        "path": "/v1/recommend",
        "version": version,
        "key": "environment",
        "status": 200,
    }
    assert (bad["status"], bad["key"], bad["version"]) == (401, None, "")
    for word in ("s3cret", "wr0ng", "private", "id-7"):
        assert word not in log.read_text()


def test_a_failure_is_one_line_with_its_place(recommender: Recommender, log: Path) -> None:
    client = make_client(Broken(recommender))
    for kind in ("disk", "lookup"):
        answer = client.post("/v1/recommend", json={"history": [kind]}, headers={"X-Request-ID": kind})
        assert answer.status_code == 500
    disk, lookup = lines(log)
    assert (disk["level"], disk["request_id"], disk["error"]) == ("error", "disk", "OSError")
    assert disk["message"] == "about ['disk']"
    assert any("test_limits.py" in frame and "answer_all" in frame for frame in disk["traceback"])
    assert lookup["error"] == "LookupError"
    assert "about" not in lookup["message"]


def test_a_failure_elsewhere_in_the_replica_is_one_line_too(log: Path) -> None:
    try:
        raise OSError("no space")
    except OSError:
        logging.getLogger("distilrec.release").exception("cannot keep %s", "it")
    (line,) = lines(log)
    assert (line["level"], line["message"]) == ("error", "cannot keep it")
    assert (line["cause"]["error"], line["cause"]["message"]) == ("OSError", "no space")


def test_a_line_per_request_can_be_left_out(recommender: Recommender, log: Path) -> None:
    make_client(LocalBackend(recommender), access_log="off").get("/v1/model")
    assert log.read_text() == ""


def test_times_of_stages_add_up(recommender: Recommender) -> None:
    started = time.perf_counter()
    client = make_client(LocalBackend(recommender))
    client.post("/v1/recommend", json=json.loads(GOOD))
    text = client.get("/metrics").text
    stages = [line.split() for line in text.splitlines() if line.startswith("distilrec_stage_seconds_sum")]
    assert len(stages) == 5
    assert 0 < sum(float(value) for _, value in stages) < time.perf_counter() - started
