from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from components.catalog_filters import Filter
from components.recommender import Query, Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.query import MAX_EXPLAINED, MAX_EXPLAINED_REQUESTS, MAX_VALUES
from serve.settings import Settings
from tests.tiny_artifact import write_artifact

HISTORY = ["id-3", "id-7", "id-11"]


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = tmp_path_factory.mktemp("serve") / "artifact"
    return Recommender(write_artifact(folder, histories=True, attributes=True))


def connected(recommender: Recommender) -> TestClient:
    app = create_app(LocalBackend(recommender), Settings())
    return TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1234))


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> Iterator[TestClient]:
    with connected(recommender) as client:
        yield client


def test_a_filter_is_applied(client: TestClient, recommender: Recommender) -> None:
    wanted = {"allow": {"color": ["red", "mauve"]}, "deny": {"kinds": ["kind 0"]}, "deny_items": ["id-6"]}
    body = client.post("/v1/recommend", json={"history": HISTORY, "filter": wanted}).json()
    query = Query(HISTORY, filter=Filter.of(**wanted))  # type: ignore[arg-type]
    assert [item["item_id"] for item in body["items"]] == [
        item.item_id for item in recommender.answer([query])[0].items
    ]
    colors = [client.get(f"/v1/items/{item['item_id']}").json()["attributes"]["color"] for item in body["items"]]
    assert colors
    assert all(color == ["red"] for color in colors)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"allow_items": ["id-9", "id-8", "nope"]}, {"id-8", "id-9"}),
        ({"allow_items": [9]}, set()),
        ({"allow_items": []}, set()),
        ({"allow": {"color": ["mauve"]}}, set()),
        ({"allow": {"color": []}}, set()),
        ({"allow_items": ["id-9"], "deny": {"color": ["red"]}}, set()),
        ({"allow_items": ["id-9"], "deny": {"color": []}}, {"id-9"}),
    ],
)
def test_what_matches_nothing_is_no_error(client: TestClient, asked: dict[str, Any], expected: set[str]) -> None:
    for source in ({"history": HISTORY}, {"history": []}, {"user_id": "ann"}):
        answer = client.post("/v1/recommend", json={**source, "filter": asked})
        assert answer.status_code == 200
        assert {item["item_id"] for item in answer.json()["items"]} == expected


@pytest.mark.parametrize(
    ("wanted", "field", "message"),
    [
        ({"allow": {"colour": ["red"]}}, "filter.allow.colour", "known: color, kinds; did you mean 'color'?"),
        ({"deny": {"color": ["red"], "size": []}}, "filter.deny.size", "known: color, kinds"),
        ({"allow": {"color": "red"}}, "filter.allow.color", "valid list"),
        ({"allow": {"color": [None]}}, "filter.allow.color.0", "valid string"),
        ({"allow": {"color": ["x"] * (MAX_VALUES + 1)}}, "filter.allow.color", f"at most {MAX_VALUES}"),
        ({"allow": {f"a{n}": [] for n in range(21)}}, "filter.allow", "at most 20"),
        ({"only": {}}, "filter.only", "unknown key"),
        ([], "filter", "valid dictionary"),
    ],
)
def test_invalid_filters_name_the_field(client: TestClient, wanted: Any, field: str, message: str) -> None:
    answer = client.post("/v1/recommend", json={"history": HISTORY, "filter": wanted})
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert message in answer.json()["message"]


def test_an_unknown_attribute_inside_a_batch_names_the_request(client: TestClient) -> None:
    requests = [{"history": HISTORY}, {"history": HISTORY, "filter": {"allow": {"size": ["9"]}}}]
    answer = client.post("/v1/recommend:batch", json={"requests": requests})
    assert (answer.status_code, answer.json()["field"]) == (422, "requests.1.filter.allow.size")


def test_without_attributes_the_message_says_what_to_do(tmp_path: Path) -> None:
    with connected(Recommender(write_artifact(tmp_path / "artifact"))) as client:
        answer = client.post("/v1/recommend", json={"history": [], "filter": {"allow": {"color": ["red"]}}})
        assert answer.status_code == 422
        assert "carries no item attributes" in answer.json()["message"]
        assert client.get("/v1/model").json()["attributes"] == []


def test_reasons_come_where_they_are_asked_for(client: TestClient) -> None:
    plain = client.post("/v1/recommend", json={"history": HISTORY, "k": 5}).json()
    explained = client.post("/v1/recommend", json={"history": HISTORY, "k": 5, "explain": True}).json()
    causes = [item.pop("because") for item in explained["items"]]
    assert explained == plain
    for few in causes:
        assert 0 < len(few) <= 3
        assert {cause["item_id"] for cause in few} <= set(HISTORY)
        assert all(cause["title"].startswith("Thing") and cause["change"] != 0 for cause in few)
    popular = client.post("/v1/recommend", json={"history": [], "k": 2, "explain": True}).json()
    assert [item["because"] for item in popular["items"]] == [[], []]


def test_reasons_are_bounded(client: TestClient) -> None:
    wide = {"history": HISTORY, "k": MAX_EXPLAINED + 1, "explain": True}
    answer = client.post("/v1/recommend", json=wide)
    assert (answer.status_code, answer.json()["field"]) == (422, "explain")
    assert "explains at most 50 items" in answer.json()["message"]
    assert client.post("/v1/recommend", json={**wide, "k": MAX_EXPLAINED}).status_code == 200
    requests = [{"history": HISTORY, "explain": True}] * (MAX_EXPLAINED_REQUESTS + 1)
    assert client.post("/v1/recommend:batch", json={"requests": requests}).status_code == 422
    assert client.post("/v1/recommend:batch", json={"requests": requests[1:]}).status_code == 200


def test_items_tell_their_attributes(client: TestClient) -> None:
    three = {
        "item_id": "id-3",
        "title": "Thing Nº 3",
        "attributes": {"color": ["red"], "kinds": ["kind 0", "all, of them"]},
    }
    assert client.get("/v1/items/id-3").json() == three
    assert client.get("/v1/items", params={"query": "id-3", "limit": 1}).json() == {"items": [three]}
    assert client.get("/v1/model").json()["attributes"] == ["color", "kinds"]
    assert client.get("/v1/model").json()["retrieval"] == {"method": "exact"}


@pytest.mark.parametrize("item_id", ["nope", "a/b", "ID-3"])
def test_an_item_that_is_not_there_is_a_404(client: TestClient, item_id: str) -> None:
    answer = client.get(f"/v1/items/{item_id}")
    assert answer.status_code == 404
    assert answer.json() == {
        "code": "not_found",
        "message": f"the catalogue holds no item {item_id!r}",
        "field": "item_id",
    }
