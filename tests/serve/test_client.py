from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

import serve.client
from components.recommender import Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.client import Client, EndpointError
from serve.settings import Settings, hash_key
from tests.tiny_artifact import write_artifact

Answer = httpx.Response | Exception


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(write_artifact(tmp_path_factory.mktemp("client") / "artifact", histories=True))


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> Iterator[Client]:
    app = create_app(LocalBackend(recommender), Settings(key_hash=hash_key("secret")))
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1)) as inside:

        def send(request: httpx.Request) -> httpx.Response:
            answer = inside.request(
                request.method, str(request.url), content=request.content, headers=dict(request.headers)
            )
            return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)

        with Client("http://127.0.0.1:8000", key="secret", transport=httpx.MockTransport(send)) as client:
            yield client


class Script:
    """Answers the requests one after another; an exception is raised instead."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.bodies = list(answers), list[Any]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content or "null"))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> Client:
        return Client("http://endpoint", transport=httpx.MockTransport(self))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(serve.client.time, "sleep", found.append)
    return found


def test_new_items_are_sent_again_while_texts_load(waits: list[float]) -> None:
    added = httpx.Response(200, json={"added": ["new-1"], "known": [], "refused": {"new-2": "no text"}, "model": "m@1"})
    script, items = Script(shed(503, "5"), added), [{"item_id": "new-1", "text": {"title": "A tent"}}]
    with script.client() as client:
        answer = client.add_items(items)
    assert (answer.added, answer.refused) == (["new-1"], {"new-2": "no text"})
    assert (script.bodies, waits) == ([{"items": items}] * 2, [5.0])


def ranked(item: str = "a") -> httpx.Response:
    return httpx.Response(200, json={"items": [{"item_id": item, "score": 1.0}], "model": "m@1"})


def shed(status: int = 429, after: str = "2") -> httpx.Response:
    body = {"code": "overloaded", "message": "too many", "field": None}
    return httpx.Response(status, json=body, headers={"Retry-After": after})


def test_importing_it_needs_neither_torch_nor_ray() -> None:
    heavy = ("torch", "ray", "numpy", "fastapi")
    code = f"import sys, serve.client; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recommendations_are_the_offline_ones(client: Client, recommender: Recommender) -> None:
    answer = client.recommend(["id-3", "nope"], k=4, exclude_seen=False)
    offline = recommender.recommend([["id-3"]], 4, exclude_seen=False)[0]
    found = [(item.item_id, item.score, item.title) for item in answer.items]
    assert found == [(item.item_id, item.score, item.title) for item in offline.items]
    assert (answer.model, answer.unknown_items, answer.fallback) == (recommender.name, ["nope"], None)
    assert client.recommend([], k=1).fallback == "popularity"
    assert client.recommend(user_id="ann", k=3).items
    first, second = client.recommend_batch([{"history": ["id-3"], "k": 2}, {"user_id": "ann"}])
    assert [item.item_id for item in first.items] == [item.item_id for item in client.recommend(["id-3"], k=2).items]
    assert len(second.items) == 10


def test_items_model_and_readiness(client: Client, recommender: Recommender) -> None:
    assert [item.item_id for item in client.items("id-5", limit=2)] == ["id-5", "id-50"]
    assert client.model()["name"] == recommender.name
    assert client.ready()
    assert not Script(shed(503)).client().ready()
    assert not Script(httpx.ConnectError("refused")).client().ready()


def test_an_error_says_what_the_endpoint_said(client: Client) -> None:
    with pytest.raises(EndpointError, match=r"422 invalid: .*\(field k\)") as caught:
        client.recommend(["id-1"], k=0)
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invalid", "k")
    stranger = Client("http://127.0.0.1:8000", key="wrong", transport=client._http._transport)
    with pytest.raises(EndpointError, match="401 unauthorized: this API key is not valid"):
        stranger.recommend(["id-1"])


def test_an_error_that_is_not_the_endpoints_is_told_too() -> None:
    answer = httpx.Response(502, text="<h1>Bad gateway</h1>", headers={"X-Request-Id": "r-7"})
    with pytest.raises(EndpointError, match="502 error: <h1>Bad gateway") as caught:
        Script(answer).client().recommend(["a"])
    assert caught.value.request_id == "r-7"
    with pytest.raises(EndpointError, match="500 error: Internal Server Error"):
        Script(httpx.Response(500)).client().model()
    with pytest.raises(EndpointError, match=r"500 error: \[1\]"):
        Script(httpx.Response(500, json=[1])).client().model()


@pytest.mark.parametrize("first", [shed(429), shed(503)])
def test_a_shed_request_is_sent_again_after_the_wait(first: httpx.Response, waits: list[float]) -> None:
    script = Script(first, ranked())
    assert script.client().recommend(["x"]).items[0].item_id == "a"
    assert waits == [2.0]
    assert script.bodies == [{"history": ["x"], "k": 10}] * 2


@pytest.mark.parametrize(
    "answers",
    [(shed(), shed()), (shed(after="3600"),), (shed(after="Wed, 21 Oct 2026 07:28:00 GMT"),), (httpx.Response(503),)],
    ids=["twice", "long wait", "a date", "no header"],
)
def test_what_stays_refused_is_an_error(answers: tuple[Answer, ...], waits: list[float]) -> None:
    script = Script(*answers)
    with pytest.raises(EndpointError):
        script.client().recommend(["x"])
    assert script.answers == []
    assert len(waits) == len(answers) - 1


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadError("reset")])
def test_a_broken_connection_is_tried_once_more(error: Exception, waits: list[float]) -> None:
    assert Script(error, ranked()).client().recommend(["x"]).model == "m@1"
    with pytest.raises(EndpointError, match="no answer unreachable: http://endpoint") as caught:
        Script(error, error).client().recommend(["x"])
    assert caught.value.status == 0
    assert waits == []


def test_a_timeout_is_not_tried_again() -> None:
    with pytest.raises(EndpointError, match="unreachable"):
        Script(httpx.ReadTimeout("late"), ranked()).client().recommend(["x"])


def stored(count: int = 1) -> httpx.Response:
    return httpx.Response(200, json={"stored": count, "duplicates": 0, "unknown_items": []})


def test_events_are_repeated_only_where_that_cannot_count_twice(waits: list[float]) -> None:
    broken = httpx.ReadError("reset")
    named = Script(broken, stored())
    assert named.client().event("u", "i", timestamp=17, event_id="e").stored == 1
    assert named.bodies[0] == {"events": [{"user_id": "u", "item_id": "i", "timestamp": 17, "event_id": "e"}]}
    for refusal in (broken, shed(503)):
        with pytest.raises(EndpointError):
            Script(refusal, stored()).client().event("u", "i")
        both = [{"user_id": "u", "item_id": "i", "event_id": "e"}, {"user_id": "u", "item_id": "j"}]
        with pytest.raises(EndpointError):
            Script(refusal, stored()).client().events(both)
    assert waits == []
    assert Script(shed(429), stored()).client().event("u", "i").stored == 1  # refused before it was read


def test_what_a_newer_endpoint_says_is_kept() -> None:
    body = {"items": [{"item_id": "a", "score": 1, "because": []}], "model": "m", "more": 3}
    answer = Script(httpx.Response(200, json=body)).client().recommend(["x"])
    assert answer.model_extra == {"more": 3}
    assert answer.items[0].model_extra == {"because": []}
