"""The pages' parts, the pictures and the opinions, without a browser; tests/browser clicks through them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from components.recommender import Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.models import Models, Served
from serve.settings import Settings, hash_key
from tests.exhibits import TEACHERS, picture, write_exhibits
from tests.tiny_artifact import write_artifact

PAGES = Path(__file__).parents[2] / "serve" / "pages"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exhibits")


@pytest.fixture(scope="module")
def backend(folder: Path) -> LocalBackend:
    return LocalBackend(Recommender(write_exhibits(folder / "shown")))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Recommender:
    return Recommender(write_artifact(folder / "plain"))


def make_client(backend: LocalBackend, key: str | None = None) -> TestClient:
    app = create_app(backend, Settings(key_hash=hash_key(key) if key else None))
    return TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1234))


@pytest.fixture(scope="module")
def client(backend: LocalBackend) -> Iterator[TestClient]:
    with make_client(backend) as client:
        yield client


TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".html": "text/html"}


@pytest.mark.parametrize("name", sorted(path.name for path in PAGES.iterdir()))
def test_every_part_is_served_with_its_type_and_tag(client: TestClient, name: str) -> None:
    answer = client.get(f"/pages/{name}")
    assert answer.content == (PAGES / name).read_bytes()
    assert answer.headers["content-type"].startswith(TYPES[Path(name).suffix])
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get(f"/pages/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/pages/none.js", "/pages/..%2fguard.py", "/pages/", "/pages/__init__.py"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(client: TestClient, page: str) -> None:
    answer = client.get(page)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", answer.text)
    for part in re.findall(r'(?:src|href)="(pages/[^"]+)"', answer.text):
        assert client.get(f"/{part}").status_code == 200


@pytest.mark.parametrize("name", sorted(path.name for path in PAGES.glob("*.js")))
def test_no_script_writes_markup_or_keeps_anything(name: str) -> None:
    text = (PAGES / name).read_text(encoding="utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Storage", "cookie"):
        assert word not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_pages_need_no_key_and_the_data_do(backend: LocalBackend) -> None:
    client = make_client(backend, key="secret")
    for path in ("/", "/docs", "/pages/app.js", "/pages/page.css", "/pages/icon.svg"):
        assert client.get(path).status_code == 200
    for path in ("/v1/items/id-1/picture", "/v1/model", "/pages"):
        assert client.get(path).status_code == 401
    assert client.post("/v1/opinions", json={"history": [], "items": ["id-1"]}).status_code == 401
    opened = client.get("/v1/items/id-1/picture", headers={"Authorization": "Bearer secret"})
    assert opened.status_code == 200


def test_a_picture_is_served_and_kept_by_its_tag(client: TestClient) -> None:
    answer = client.get("/v1/items/id-3/picture")
    assert answer.content == picture(3)
    assert Image.open(io.BytesIO(answer.content)).format == "WEBP"
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    again = client.get("/v1/items/id-3/picture", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("item_id", ["id-5", "nope", "a/b", "%F0%9F%8E%AC"])
def test_an_item_without_a_picture_is_not_found(client: TestClient, item_id: str) -> None:
    answer = client.get(f"/v1/items/{item_id}/picture")
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (404, "not_found", "item_id")


def test_a_picture_may_come_from_another_loaded_version(backend: LocalBackend, plain: Recommender) -> None:
    mixed = LocalBackend(plain)
    assert make_client(mixed).get("/v1/items/id-3/picture").status_code == 404
    mixed.models = Models(mixed.models.incumbent, others=(Served("v2", backend.models.loaded[0].recommender),))
    assert make_client(mixed).get("/v1/items/id-3/picture").content == picture(3)


def test_the_model_says_what_there_is_to_show(client: TestClient, plain: Recommender) -> None:
    shown, bare = client.get("/v1/model").json(), make_client(LocalBackend(plain)).get("/v1/model").json()
    assert (shown["pictures"], set(shown["teachers"])) == (True, set(TEACHERS))
    assert (bare["pictures"], bare["teachers"]) == (False, [])


def test_teachers_say_what_they_think(client: TestClient) -> None:
    history, items = ["id-3", "nope", "id-9"], ["id-4", "id-3", "gone"]
    body = client.post("/v1/opinions", json={"history": history, "items": items}).json()
    assert set(body["teachers"]) == set(TEACHERS)
    assert [item["item_id"] for item in body["items"]] == items
    first = body["items"][0]["opinions"]
    assert [one["teacher"] for one in first] == body["teachers"]
    assert all(one["nearest"] in ("id-3", "id-9") and 1 <= one["position"] <= 58 for one in first)
    assert body["items"][1]["opinions"] == body["items"][2]["opinions"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"history": []}, "items"),
        ({"history": [], "items": []}, "items"),
        ({"history": [], "items": ["a"] * 101}, "items"),
        ({"history": "a", "items": ["a"]}, "history"),
        ({"history": [], "items": ["a"], "model": "v9"}, "model"),
        ({"history": [], "items": ["a"], "more": 1}, "more"),
    ],
)
def test_wrong_questions_name_the_field(client: TestClient, body: dict[str, object], field: str) -> None:
    answer = client.post("/v1/opinions", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_an_artifact_without_opinions_says_so(plain: Recommender) -> None:
    answer = make_client(LocalBackend(plain)).post("/v1/opinions", json={"history": [], "items": ["id-1"]})
    assert answer.status_code == 404
    assert "export a run with teachers" in answer.json()["message"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/model", "/nothing", "/v1/recommend"])
def test_every_answer_tells_its_own_time(client: TestClient, path: str) -> None:
    assert re.fullmatch(r"total;dur=\d+\.\d\d", client.get(path).headers["server-timing"])
