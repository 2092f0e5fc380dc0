from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from components.recommender import Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.histories.histories import Histories
from serve.histories.source import HistorySource
from serve.settings import Settings
from tests.serve.histories.servers import StartRedis
from tests.tiny_artifact import write_artifact


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(write_artifact(tmp_path_factory.mktemp("events") / "artifact", histories=True))


def client_of(recommender: Recommender, histories: Histories) -> TestClient:
    app = create_app(LocalBackend(recommender), Settings(), histories=histories)
    return TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1), raise_server_exceptions=False)


@pytest.fixture
def client(recommender: Recommender, tmp_path: Path) -> Iterator[TestClient]:
    histories = HistorySource(events=str(tmp_path / "serving")).open(recommender.folder)
    with client_of(recommender, histories) as client:
        yield client
    histories.close()


def ranked(client: TestClient, **body: Any) -> Any:
    answer = client.post("/v1/recommend", json={"k": 5, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_next_recommendation_knows_an_event(client: TestClient) -> None:
    before = ranked(client, user_id="ann")
    answer = client.post("/v1/events", json={"user_id": "ann", "item_id": "id-40"})
    assert (answer.status_code, answer.json()) == (200, {"stored": 1, "duplicates": 0, "unknown_items": []})
    after = ranked(client, user_id="ann")
    assert after == ranked(client, history=["id-3", "id-4", "id-5", "id-40"])
    assert after != before


def test_a_new_user_begins_with_the_popular_items(client: TestClient) -> None:
    assert ranked(client, user_id="eve") == ranked(client, history=[])
    assert ranked(client, user_id="eve")["fallback"] == "popularity"
    client.post("/v1/events", json={"user_id": "eve", "item_id": "made-up"})
    only_unknown = ranked(client, user_id="eve")
    assert (only_unknown["fallback"], only_unknown["unknown_items"]) == ("popularity", ["made-up"])
    client.post("/v1/events", json={"user_id": "eve", "item_id": "id-9"})
    assert ranked(client, user_id="eve") == ranked(client, history=["made-up", "id-9"])


def test_several_events_come_in_one_call_and_stand_by_time(client: TestClient) -> None:
    events = [
        {"user_id": "eve", "item_id": "id-3", "timestamp": "2024-05-01T10:00:00+02:00"},
        {"user_id": "eve", "item_id": "id-2", "timestamp": 1714550399.5, "value": 4.5},
        {"user_id": "eve", "item_id": "new", "timestamp": 1714550401000},
        {"user_id": 17, "item_id": 4},
        {"user_id": "eve", "item_id": "id-1", "timestamp": "2024-04-30"},
    ]
    answer = client.post("/v1/events", json={"events": events}).json()
    assert answer == {"stored": 5, "duplicates": 0, "unknown_items": ["new", "4"]}
    assert ranked(client, user_id="eve") == ranked(client, history=["id-1", "id-2", "id-3", "new"])
    assert ranked(client, user_id=17)["unknown_items"] == ["4"]


def test_a_repeated_post_counts_once(client: TestClient) -> None:
    event = {"user_id": "eve", "item_id": "id-3", "event_id": "click-1"}
    stored = [client.post("/v1/events", json=event).json() for _ in range(3)]
    assert [(one["stored"], one["duplicates"]) for one in stored] == [(1, 0), (0, 1), (0, 1)]
    assert ranked(client, user_id="eve", exclude_seen=False) == ranked(client, history=["id-3"], exclude_seen=False)


def test_an_item_may_come_twice(client: TestClient) -> None:
    client.post(
        "/v1/events", json={"events": [{"user_id": "eve", "item_id": name} for name in ("id-3", "id-4", "id-3")]}
    )
    assert ranked(client, user_id="eve") == ranked(client, history=["id-3", "id-4", "id-3"])


def test_a_batch_reads_each_user(client: TestClient) -> None:
    client.post("/v1/events", json={"user_id": "eve", "item_id": "id-9"})
    requests = [
        {"user_id": "eve", "k": 3},
        {"history": ["id-1"], "k": 3},
        {"user_id": "ann"},
        {"user_id": "no"},
        {"user_id": "eve"},
    ]
    results = client.post("/v1/recommend:batch", json={"requests": requests}).json()["results"]
    assert results == [client.post("/v1/recommend", json=request).json() for request in requests]


EVENT = {"user_id": "eve", "item_id": "id-1"}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, None, "give one event's `user_id` and `item_id`, or `events`"),
        ({**EVENT, "events": [EVENT]}, None, "or `events`"),
        ({"user_id": "eve"}, None, "needs `user_id` and `item_id`"),
        ({"timestamp": 3}, None, "needs `user_id` and `item_id`"),
        ({"events": []}, "events", "at least 1 item"),
        ({"events": [EVENT] * 1001}, "events", "at most 1000"),
        ({"events": [EVENT, {"user_id": "eve"}]}, "events.1.item_id", "required"),
        ({"events": [{**EVENT, "when": 3}]}, "events.0.when", "unknown key"),
        ({**EVENT, "user_id": ""}, "user_id", "at least 1 character"),
        ({**EVENT, "item_id": "x" * 513}, "item_id", "at most 512"),
        ({**EVENT, "event_id": ""}, "event_id", "at least 1 character"),
        ({**EVENT, "value": "much"}, "value", "valid number"),
        ({**EVENT, "timestamp": True}, "timestamp", "valid datetime"),
        ({**EVENT, "timestamp": "soon"}, "timestamp", "valid datetime"),
        ({**EVENT, "timestamp": -1}, "timestamp", "between 1970 and tomorrow"),
        ({**EVENT, "timestamp": "0001-01-01T00:00:00+23:59"}, "timestamp", "between 1970 and tomorrow"),
        ({**EVENT, "timestamp": "9999-12-31T23:59:59-23:59"}, "timestamp", "between 1970 and tomorrow"),
        ({**EVENT, "timestamp": 1e300}, "timestamp", "after 9999"),
        ({"events": [EVENT, {**EVENT, "timestamp": 4e9}]}, "events.1.timestamp", "between 1970 and tomorrow"),
        ([EVENT], None, "valid dictionary"),
    ],
)
def test_invalid_events_name_the_field_and_nothing_is_kept(
    client: TestClient, body: Any, field: str | None, message: str
) -> None:
    answer = client.post("/v1/events", json=body)
    assert answer.status_code == 422, answer.text
    assert (answer.json()["code"], answer.json()["field"]) == ("invalid", field)
    assert message in answer.json()["message"]
    assert ranked(client, user_id="eve")["fallback"] == "popularity"
    assert client.post("/v1/events", json=EVENT).json()["stored"] == 1


@pytest.mark.parametrize(
    "content",
    [
        b'{"user_id": "eve", "item_id": "id-1", "timestamp": NaN}',
        b'{"user_id": "eve", "item_id": "id-1", "timestamp": Infinity}',
        b'{"user_id": "eve", "item_id": "id-1", "value": NaN}',
        b'{"user_id": "eve", "item_id": "\\ud800"}',
        b'{"user_id": "\\udfff", "item_id": "id-1"}',
        b'{"user_id": "\xff\xfe", "item_id": "id-1"}',
        b"{",
    ],
)
def test_what_no_json_can_say_is_a_client_error(client: TestClient, content: bytes) -> None:
    answer = client.post("/v1/events", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"code", "message", "field"}
    assert client.post("/v1/events", json=EVENT).json()["stored"] == 1


def test_a_thousand_events_are_taken(client: TestClient) -> None:
    events = [{"user_id": f"user-{number % 7}", "item_id": f"id-{number % 60 + 1}"} for number in range(1000)]
    assert client.post("/v1/events", json={"events": events}).json()["stored"] == 1000


def test_the_clock_of_another_machine_may_be_a_little_ahead(client: TestClient) -> None:
    assert client.post("/v1/events", json={**EVENT, "timestamp": time.time() + 3600}).status_code == 200


def test_an_artifact_alone_says_how_to_keep_events(recommender: Recommender) -> None:
    with client_of(recommender, HistorySource().open(recommender.folder)) as client:
        answer = client.post("/v1/events", json=EVENT)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "--histories FOLDER" in answer.json()["message"]
        assert ranked(client, user_id="ann") == ranked(client, history=["id-3", "id-4", "id-5"])
        assert client.get("/v1/model").json()["user_histories"] is True


def test_a_user_number_reaches_models_of_its_own_data_alone(recommender: Recommender, tmp_path: Path) -> None:
    asked: list[int] = []

    class Watching(LocalBackend):
        async def answer_all(self, model: Any, queries: Any) -> Any:
            asked.extend(query.user for query in queries)
            return await super().answer_all(model, queries)

    other = Recommender(write_artifact(tmp_path / "other", seed=3))
    histories = HistorySource().open(recommender.folder)
    for served in (recommender, other):
        app = create_app(Watching(served), Settings(), histories=histories)
        with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
            assert ranked(client, user_id="böb")["fallback"] is None
    assert asked == [2, 0]


def test_a_redis_that_goes_away_and_comes_back(
    recommender: Recommender, tmp_path: Path, start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis(tmp_path, password="hush")
    histories = HistorySource(events=server.url).open(recommender.folder)
    with client_of(recommender, histories) as client:
        assert client.post("/v1/events", json={"user_id": "ann", "item_id": "id-40"}).json()["stored"] == 1
        known = ranked(client, user_id="ann")
        server.kill()
        for _ in range(3):
            for answer in (
                client.post("/v1/events", json=EVENT),
                client.post("/v1/recommend", json={"user_id": "ann"}),
                client.post("/v1/recommend:batch", json={"requests": [{"user_id": "ann"}, {"history": []}]}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "store_down")
                assert "event store is down" in answer.json()["message"]
                assert answer.headers["retry-after"] == "1"
            assert ranked(client, history=["id-3", "id-4", "id-5", "id-40"]) == known
            assert client.get("/readyz").status_code == 200
        server.start()
        assert ranked(client, user_id="ann") == known
        assert client.post("/v1/events", json=EVENT).json()["stored"] == 1
        server.kill()
        server.start()
        assert client.post("/v1/events", json=EVENT).json()["stored"] == 1, "a stale connection is not used"
    histories.close()
    assert "the event store does not answer" in caplog.text
    assert "hush" not in caplog.text
    assert json.dumps(known) not in caplog.text


def test_a_store_that_vanishes_is_said_and_comes_back(recommender: Recommender, tmp_path: Path) -> None:
    folder = tmp_path / "serving"
    histories = HistorySource(events=str(folder)).open(recommender.folder)
    with client_of(recommender, histories) as client:
        client.post("/v1/events", json=EVENT)
        folder.rename(tmp_path / "away")
        assert client.post("/v1/events", json=EVENT).json()["code"] == "store_down"
        assert client.post("/v1/recommend", json={"history": ["id-1"]}).status_code == 200
        (tmp_path / "away").rename(folder)
        assert client.post("/v1/events", json=EVENT).json()["stored"] == 1
        assert ranked(client, user_id="ann")
        found = client.get("/metrics").text.splitlines()
    histories.close()
    calls = '{action="append",replica="local",store="events"}'
    assert f"distilrec_store_failures_total{calls} 1.0" in found
    assert f"distilrec_store_seconds_count{calls} 3.0" in found
    assert 'distilrec_stored_total{replica="local",store="events"} 2.0' in found
    assert 'distilrec_store_seconds_count{action="read",replica="local",store="events"} 1.0' in found
