"""Bad requests of every kind: no 5xx, always the common body, and the next good request is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from components.recommender import Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.schema import BatchResponse, ErrorResponse, RecommendResponse
from serve.settings import MAX_HISTORY, Settings
from tests.serve.clients import make_client
from tests.tiny_artifact import write_artifact

PATHS = ("/v1/recommend", "/v1/recommend:batch")
ANSWERS = {"/v1/recommend": RecommendResponse, "/v1/recommend:batch": BatchResponse}
FEW, MANY = 300, 10_000
WITHIN = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    artifact = write_artifact(tmp_path_factory.mktemp("fuzz") / "artifact", histories=True)
    with make_client(LocalBackend(Recommender(artifact))) as client:
        yield client


def post(client: TestClient, path: str, content: Any, kind: str = "application/json") -> httpx.Response:
    return client.post(path, content=content, headers={"Content-Type": kind})


def assert_answered(answer: httpx.Response, path: str) -> None:
    """It is an answer of ours: a result, or an error of the client with the common body."""
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert answer.headers["x-request-id"]
    (ANSWERS[path] if answer.status_code == 200 else ErrorResponse).model_validate_json(answer.content)


def assert_good(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"history": ["id-3"], "k": 3})
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 3


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"history"',
        b"\xff\xfe{}",
        b'{"history": ["\xff"]}',
        b'{"history": ["\\ud800"]}',
        b'{"history": [NaN}',
        b'{"history": [1e999]',
        b'{"history": ["a"], "history": 3}',
        b"[" * 100_000,
        b'{"history": ["a"], "k": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_request_is_a_client_error(client: TestClient, path: str, content: bytes) -> None:
    answer = post(client, path, content)
    assert answer.status_code in (400, 422)
    assert_answered(answer, path)
    assert_good(client)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"history": ["id-1"], "k": 0}, "k"),
        ({"history": ["id-1"], "k": -1}, "k"),
        ({"history": ["id-1"], "k": 1_000_000}, "k"),
        ({"history": ["id-1"], "k": 10**40}, "k"),
        ({"history": ["id-1"], "k": 1.5}, "k"),
        ({"history": {"id-1": 1}}, "history"),
        ({"history": [["id-1"]]}, "history.0"),
        ({"history": ["x" * 513]}, "history.0"),
        ({"history": ["a"] * (MAX_HISTORY + 1)}, "history"),
        ({"user_id": ["ann"]}, "user_id"),
    ],
)
def test_what_is_out_of_bounds_is_named(client: TestClient, body: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/recommend", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert_good(client)


def test_a_history_of_a_million_ids_is_too_large(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"history": ["id-1"] * 1_000_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert_good(client)


def test_sixty_megabytes_are_refused_before_they_are_read(client: TestClient) -> None:
    sent = 0

    def stream() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(60):
            sent += 1
            yield b" " * 1_000_000

    answer = post(client, "/v1/recommend", stream())
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert_good(client)


def test_duplicates_and_unknown_items_are_answered(client: TestClient) -> None:
    body = client.post("/v1/recommend", json={"history": ["id-1"] * 50 + ["nope", "nope"], "k": 5}).json()
    assert len(body["items"]) == 5
    assert body["unknown_items"] == ["nope", "nope"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["history", "user_id", "k", "exclude_seen", "model", "requests", "filters", ""])
IDS = st.sampled_from(["id-1", "id-59", "nope", "", "\x00", "é" * 300])
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "history": st.lists(IDS | VALUES, max_size=5) | VALUES,
        "user_id": st.sampled_from(["ann", "böb", "nobody"]) | VALUES,
        "k": st.integers(-2, 1002) | VALUES,
        "exclude_seen": st.booleans() | VALUES,
        "model": st.text(max_size=8) | VALUES,
    },
)
BATCHES = st.fixed_dictionaries({"requests": st.lists(NEARLY, max_size=4) | VALUES})
BODIES = st.one_of(
    (NEARLY | BATCHES | VALUES | st.dictionaries(KEYS, VALUES)).map(lambda value: json.dumps(value).encode()),
    (NEARLY | BATCHES).flatmap(lambda value: st.integers(0, 200).map(lambda cut: json.dumps(value).encode()[:cut])),
    st.binary(max_size=200),
)


def fuzz(client: TestClient, examples: int) -> None:
    seen: set[int] = set()

    @settings(max_examples=examples, **WITHIN)
    @given(path=st.sampled_from(PATHS), content=BODIES)
    def run(path: str, content: bytes) -> None:
        answer = post(client, path, content)
        assert_answered(answer, path)
        seen.add(answer.status_code)

    run()
    assert {200, 422} <= seen, "the bodies reach neither the model nor the checks"
    assert_good(client)


def test_a_few_bodies(client: TestClient) -> None:
    fuzz(client, FEW)


@pytest.mark.slow
def test_many_bodies(client: TestClient) -> None:
    fuzz(client, MANY)


def fuzz_schema(recommender: Recommender, examples: int) -> None:
    """Requests that follow the application's own description, and requests that break it in one place."""
    app = create_app(LocalBackend(recommender), Settings(loopback_only=False))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    count = 0
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 7
    for operation in operations:

        @settings(max_examples=max(1, examples // len(operations)), **WITHIN)
        @given(case=operation.as_strategy() | operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))
        def run(case: Any) -> None:
            nonlocal count
            count += 1
            answer = case.call()
            assert answer.status_code < 500, (case.body, answer.text)
            if answer.status_code >= 400:
                ErrorResponse.model_validate_json(answer.content)

        run()
    assert count >= examples // 3


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(write_artifact(tmp_path_factory.mktemp("schema") / "artifact", histories=True))


def test_a_few_requests_by_the_schema(recommender: Recommender) -> None:
    fuzz_schema(recommender, 70)


@pytest.mark.slow
def test_many_requests_by_the_schema(recommender: Recommender, tmp_path: Path) -> None:
    fuzz_schema(recommender, 2_000)
