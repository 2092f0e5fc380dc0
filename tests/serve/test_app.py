from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from components.recommender import Query, Recommendation, Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.models import Served
from serve.settings import MAX_HISTORY, Settings, hash_key
from tests.tiny_artifact import item_id, write_artifact


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(write_artifact(tmp_path_factory.mktemp("serve") / "artifact", histories=True))


def make_client(backend: LocalBackend, peer: str = "127.0.0.1", **settings: Any) -> TestClient:
    app = create_app(backend, Settings(**settings))
    return TestClient(app, base_url="http://127.0.0.1:8000", client=(peer, 1234), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> Iterator[TestClient]:
    with make_client(LocalBackend(recommender)) as client:
        yield client


class Broken(LocalBackend):
    async def answer_all(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        raise RuntimeError("secret detail in /private/path")


def test_the_endpoint_gives_the_offline_ranking(client: TestClient, recommender: Recommender) -> None:
    history = ["id-3", "nope", "id-7"]
    body = client.post("/v1/recommend", json={"history": history, "k": 7}).json()
    offline = recommender.recommend([history], 7)[0]
    assert [(item["item_id"], item["score"], item["title"]) for item in body["items"]] == [
        (item.item_id, item.score, item.title) for item in offline.items
    ]
    assert body["model"] == recommender.name
    assert body["unknown_items"] == ["nope"]
    assert body["fallback"] is None


def test_an_empty_history_is_answered_and_flagged(client: TestClient) -> None:
    body = client.post("/v1/recommend", json={"history": [], "k": 2}).json()
    assert body["fallback"] == "popularity"
    assert [item["item_id"] for item in body["items"]] == ["id-1", "id-2"]


def test_a_stored_user_is_answered(client: TestClient) -> None:
    by_user = client.post("/v1/recommend", json={"user_id": "ann"}).json()
    by_history = client.post("/v1/recommend", json={"history": ["id-3", "id-4", "id-5"]}).json()
    assert by_user == by_history


def test_a_batch_gives_the_single_answers(client: TestClient) -> None:
    requests = [{"history": [item_id(n), item_id(n + 1)], "k": n} for n in range(1, 20)]
    results = client.post("/v1/recommend:batch", json={"requests": requests}).json()["results"]
    assert results == [client.post("/v1/recommend", json=request).json() for request in requests]


def test_ids_that_look_like_numbers_may_be_numbers(client: TestClient) -> None:
    assert client.post("/v1/recommend", json={"history": [17]}).json()["unknown_items"] == ["17"]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, None, "give either `history` or `user_id`"),
        ({"history": [], "user_id": "ann"}, None, "give either `history` or `user_id`"),
        ({"history": ["a"], "k": 0}, "k", "greater than or equal to 1"),
        ({"history": ["a"], "k": 1001}, "k", "less than or equal to 1000"),
        ({"history": ["a"], "k": "10"}, "k", "valid integer"),
        ({"history": ["a"], "k": True}, "k", "valid integer"),
        ({"history": ["a"], "exclude_seen": "no"}, "exclude_seen", "valid boolean"),
        ({"history": ["a", None]}, "history.1", "valid string"),
        ({"history": ["a", ""]}, "history.1", "at least 1 character"),
        ({"history": "abc"}, "history", "valid list"),
        ({"history": ["a"] * (MAX_HISTORY + 1)}, "history", f"at most {MAX_HISTORY}"),
        ({"history": ["a"], "top": 3}, "top", "unknown key"),
        ({"user_id": ""}, "user_id", "at least 1 character"),
        ([], None, "valid dictionary"),
    ],
)
def test_invalid_requests_name_the_field(client: TestClient, body: Any, field: str | None, message: str) -> None:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"code", "message", "field"}
    assert answer.json()["code"] == "invalid"
    assert answer.json()["field"] == field
    assert message in answer.json()["message"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"history": [NaN', b"\xff\xfe", b'{"history": ["\\ud800"]}'])
def test_a_body_that_is_no_json_is_a_client_error(client: TestClient, content: bytes) -> None:
    answer = client.post("/v1/recommend", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"code", "message", "field"}


def test_an_error_inside_a_batch_names_the_request(client: TestClient) -> None:
    requests = [{"history": ["id-1"]}, {"history": ["id-1"], "k": 0}]
    assert client.post("/v1/recommend:batch", json={"requests": requests}).json()["field"] == "requests.1.k"


def test_a_batch_is_bounded(client: TestClient) -> None:
    wide = {"requests": [{"history": ["a"], "k": 1000}] * 21}
    assert "at most 20000" in client.post("/v1/recommend:batch", json=wide).json()["message"]
    assert client.post("/v1/recommend:batch", json={"requests": []}).status_code == 422
    assert client.post("/v1/recommend:batch", json={"requests": [{"history": []}] * 257}).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/v1/recommend", 405, "method_not_allowed")],
)
def test_wrong_paths_have_the_common_body(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "/docs" in answer.json()["message"]


def test_no_traceback_leaves_the_server(recommender: Recommender) -> None:
    answer = make_client(Broken(recommender)).post("/v1/recommend", json={"history": ["id-1"]})
    assert answer.status_code == 500
    assert answer.json() == {"code": "internal", "message": "the server failed; its log has the reason", "field": None}


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic key"}, {"X-API-Key": "k"}]
)
def test_a_key_is_required_where_one_is_set(recommender: Recommender, headers: dict[str, str]) -> None:
    client = make_client(LocalBackend(recommender), key_hash=hash_key("key"))
    for path in ("/v1/model", "/v1/items", "/metrics", "/nothing"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/recommend", json={"history": []}, headers=headers).status_code == 401
    assert client.get("/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer key"}, {"X-API-Key": "key"}])
def test_the_key_opens(recommender: Recommender, headers: dict[str, str]) -> None:
    client = make_client(LocalBackend(recommender), key_hash=hash_key("key"))
    assert client.get("/v1/model", headers=headers).status_code == 200


def test_other_machines_are_refused_on_loopback(recommender: Recommender) -> None:
    backend = LocalBackend(recommender)
    assert make_client(backend, peer="192.0.2.7").get("/v1/model").status_code == 403
    assert make_client(backend, peer="192.0.2.7", loopback_only=False).get("/v1/model").status_code == 200
    assert make_client(backend, peer="::1").get("/v1/model").status_code == 200


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("localhost:8000", 200), ("[::1]:8000", 200)])
def test_a_name_that_was_rebound_to_this_machine_is_refused(client: TestClient, host: str, status: int) -> None:
    assert client.get("/v1/model", headers={"Host": host}).status_code == status


def test_large_bodies_are_refused(recommender: Recommender) -> None:
    client = make_client(LocalBackend(recommender), max_body_bytes=100)
    body = json.dumps({"history": ["x" * 200]}).encode()
    declared = client.post("/v1/recommend", content=body)
    chunked = client.post("/v1/recommend", content=(body[i : i + 20] for i in range(0, len(body), 20)))
    for answer in (declared, chunked):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_overload_is_shed_with_a_time_to_wait(recommender: Recommender) -> None:
    """The requests that are let in wait for each other, so that all of them overlap."""
    import asyncio

    class Slow(LocalBackend):
        async def answer(self, model: Served, query: Query) -> Recommendation:
            await asyncio.wait_for(shed.wait(), 20)
            return await super().answer(model, query)

    shed = asyncio.Event()
    app = create_app(Slow(recommender), Settings(max_in_flight=3, retry_after_s=7))

    async def load() -> list[Any]:
        import httpx

        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            calls = [asyncio.create_task(client.post("/v1/recommend", json={"history": []})) for _ in range(8)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            health = await client.get("/healthz")
            shed.set()
            return [health, *await asyncio.gather(*calls)]

    health, *answers = asyncio.run(load())
    assert health.status_code == 200
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "7"
    assert refused.json()["code"] == "overloaded"


def test_loading_is_said() -> None:
    client = make_client(LocalBackend(None))
    assert client.get("/healthz").json() == {"status": "alive"}
    for answer in (client.get("/readyz"), client.get("/v1/model"), client.post("/v1/recommend", json={"history": []})):
        assert (answer.status_code, answer.json()["code"]) == (503, "loading")


def test_readiness_names_the_model(client: TestClient, recommender: Recommender) -> None:
    assert client.get("/readyz").json() == {"status": "ready", "model": recommender.name}


def test_the_model_describes_itself(client: TestClient) -> None:
    body = client.get("/v1/model").json()
    assert (body["kind"], body["family"], body["num_items"]) == ("sasrec", "student", 60)
    assert body["metrics"] == {"valid_ndcg@10": 0.25}
    assert body["manifest"]["schema_version"] == 1


def test_items_are_found(client: TestClient) -> None:
    found = client.get("/v1/items", params={"query": "nº 2", "limit": 2}).json()["items"]
    assert found == [
        {"item_id": "id-2", "title": "Thing Nº 2", "attributes": {}},
        {"item_id": "id-20", "title": "Thing Nº 20", "attributes": {}},
    ]
    assert client.get("/v1/items", params={"limit": 0}).json()["field"] == "limit"


def test_requests_are_counted(recommender: Recommender) -> None:
    client = make_client(LocalBackend(recommender))
    client.post("/v1/recommend", json={"history": ["nope", "id-1"]})
    client.post("/v1/recommend", json={"history": 3})
    client.get("/made-up-1")
    client.get("/made-up-2")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    text, version = answer.text, recommender.name.rpartition("@")[2]
    assert 'distilrec_requests_total{path="/v1/recommend",replica="local",status="200",version="' + version in text
    assert 'distilrec_requests_total{path="/v1/recommend",replica="local",status="422",version=""} 1.0' in text
    assert 'distilrec_requests_total{path="other",replica="local",status="404",version=""} 2.0' in text
    assert f'distilrec_request_seconds_count{{path="/v1/recommend",replica="local",version="{version}"}} 1.0' in text
    for stage in ("receive", "parse", "queue", "model", "render"):
        assert f'distilrec_stage_seconds_count{{replica="local",stage="{stage}"}} 1.0' in text
    assert 'distilrec_batch_size_count{replica="local"} 1.0' in text
    assert 'distilrec_unknown_items_total{replica="local"} 1.0' in text
    assert "made-up" not in text


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_need_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "innerHTML" not in page.text


def test_the_description_lists_every_path(client: TestClient) -> None:
    api = client.get("/openapi.json").json()
    expected = {
        "/v1/recommend",
        "/v1/recommend:batch",
        "/v1/events",
        "/v1/model",
        "/v1/items",
        "/v1/items/{item_id}",
        "/v1/items/{item_id}/picture",
        "/v1/opinions",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert set(api["paths"]) == expected
    assert api["components"]["schemas"]["RecommendRequest"]["additionalProperties"] is False


def test_many_at_once_are_all_answered(client: TestClient) -> None:
    def ask(number: int) -> tuple[int, list[str]]:
        answer = client.post("/v1/recommend", json={"history": [item_id(number % 60 + 1)], "k": 5})
        return answer.status_code, [item["item_id"] for item in answer.json()["items"]]

    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(ask, range(200)))
    assert together == [ask(number) for number in range(60)] * 3 + [ask(number) for number in range(20)]


def test_the_pages_are_part_of_the_package() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"serve" = ["pages/*"]' in project
