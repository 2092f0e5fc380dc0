"""Items that are added while serving, over HTTP and without Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from torch import Tensor

import serve.growing
from components.artifacts.format import read_manifest, seal
from components.data.item_text import NO_TEXT
from components.errors import ArtifactError, StorageError
from components.item_maker import PROJECTION_CONFIG_FILE
from components.recommender import Recommender
from serve.backend import LocalBackend, as_served
from serve.growing import Growing
from serve.item_schema import MAX_ITEMS, MAX_TEXT
from serve.item_store import ItemStore, KeptItem
from serve.models import Models, Served
from tests.growable_artifact import DIMS, WordEncoder, new_item, unit_vectors, write_growable
from tests.serve.test_app import make_client
from tests.tiny_artifact import write_artifact

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 300.0  # a busy machine takes most of a minute to import
PROBES = [["id-3"], ["id-1", "id-9", "id-40"]]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_growable(tmp_path_factory.mktemp("items") / "artifact")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "serving" / "items.sqlite"


def make_backend(artifact: Path, store: Path, encoder: WordEncoder | None = None) -> LocalBackend:
    return LocalBackend(Recommender(artifact), Growing(ItemStore(store), encoder))


def add(client: TestClient, *items: Mapping[str, Any]) -> Any:
    return client.post("/v1/items", json={"items": list(items)})


def scores(client: TestClient, history: Sequence[str]) -> dict[str, float]:
    body = client.post("/v1/recommend", json={"history": history, "k": 200, "exclude_seen": False}).json()
    assert body["unknown_items"] == []
    return {item["item_id"]: item["score"] for item in body["items"]}


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.02)


def test_an_item_is_ranked_at_once_and_known_scores_stay(artifact: Path, store: Path) -> None:
    with make_client(make_backend(artifact, store)) as client:
        before = [scores(client, history) for history in PROBES]
        answer = add(client, new_item("tent"), new_item("rope"))
        assert answer.status_code == 200, answer.text
        name = Recommender(artifact).name
        expected = {"added": ["new-tent", "new-rope"], "known": [], "refused": {}, "model": name, "num_items": 62}
        assert answer.json() == expected
        after = [scores(client, history) for history in PROBES]
        for old, new in zip(before, after, strict=True):
            assert set(new) - set(old) == {"new-tent", "new-rope"}
            assert {item_id: new[item_id] for item_id in old} == old, "to the bit"
        assert len(scores(client, ["new-rope", "id-4"])) == 62
        assert client.get("/v1/items", params={"query": "rop"}).json()["items"] == [
            {"item_id": "new-rope", "title": "Rope", "attributes": {}}
        ]
        assert client.get("/v1/model").json()["num_items"] == 62


def test_known_items_stay_and_are_listed(artifact: Path, store: Path) -> None:
    with make_client(make_backend(artifact, store)) as client:
        add(client, new_item("tent"))
        before = scores(client, ["id-3"])
        other = {**new_item("rope"), "item_id": "new-tent"}
        body = add(client, other, {**new_item("rope"), "item_id": "id-7"}, new_item("rope")).json()
        assert (body["added"], body["known"], body["num_items"]) == (["new-rope"], ["new-tent", "id-7"], 62)
        after = scores(client, ["id-3"])
        assert {item_id: after[item_id] for item_id in before} == before


def test_texts_are_read_by_the_run(artifact: Path, store: Path, tmp_path: Path) -> None:
    encoder = WordEncoder(tmp_path)
    with make_client(make_backend(artifact, store, encoder)) as client:
        text = {"item_id": "by-text", "text": {"title": "te", "brand": "nt"}}
        mute = {"item_id": "mute", "text": {"title": " ", "brand": ""}}
        body = add(client, text, mute, new_item("tent"), {"item_id": 17, "text": {"brand": "Acme"}}).json()
        assert body["added"] == ["by-text", "new-tent", "17"]
        assert body["refused"] == {"mute": NO_TEXT}
        assert encoder.calls == 1, "all texts of a call are read together"
        found = scores(client, ["id-3"])
        assert found["by-text"] == found["new-tent"] != found["17"]
        titles = {
            one["item_id"]: one["title"] for one in client.get("/v1/items", params={"limit": 100}).json()["items"]
        }
        assert (titles["by-text"], titles["new-tent"], titles["17"]) == ("te", "Tent", "Acme.")


def test_texts_that_take_too_long_are_to_be_sent_again(
    artifact: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first texts load language models: a 503 before the request's time is up, not a 504 behind it."""
    loaded = threading.Event()

    class Loading(WordEncoder):
        def vectors(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
            assert loaded.wait(DEADLINE_S)
            return super().vectors(texts)

    text = {"item_id": "by-text", "text": {"title": "tent"}}
    with make_client(make_backend(artifact, store, Loading(tmp_path)), timeout_s=DEADLINE_S) as client:
        with monkeypatch.context() as impatient:
            impatient.setattr("serve.routes.new_items.READING", 0.1 / DEADLINE_S)
            answer = add(client, text)
        assert (answer.status_code, answer.json()["code"]) == (503, "loading")
        assert answer.headers["retry-after"].isdecimal()
        assert "by-text" not in scores(client, ["id-3"])
        loaded.set()
        assert add(client, text).json()["added"] == ["by-text"]


def test_calls_of_stores_are_counted(artifact: Path, store: Path) -> None:
    def values(client: TestClient) -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("distilrec_sto")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    with make_client(make_backend(artifact, store)) as client:
        add(client, new_item("tent"), new_item("rope"))
        found = values(client)
        assert found['distilrec_stored_total{replica="local",store="items"}'] == 2
        labels = '{action="append",replica="local",store="items"}'
        assert found[f"distilrec_store_seconds_count{labels}"] == 1
        assert found[f"distilrec_store_failures_total{labels}"] == 0
        store.unlink()
        assert add(client, new_item("stove")).status_code == 503
        assert values(client)[f"distilrec_store_failures_total{labels}"] == 1


def test_the_model_says_what_can_be_added(artifact: Path, store: Path, tmp_path: Path) -> None:
    def information(backend: LocalBackend) -> Any:
        with make_client(backend) as client:
            return client.get("/v1/model").json()["new_items"]

    both = {"text": ["title", "brand"], "vectors": DIMS, "why_not": None, "added": 0, "missing": 0}
    assert information(make_backend(artifact, store, WordEncoder(tmp_path))) == both
    without = information(make_backend(artifact, store))
    assert (without["text"], without["vectors"]) == ([], DIMS)
    assert "not served from the folder of its run" in without["why_not"]
    other = information(make_backend(artifact, store, WordEncoder(tmp_path, {"teach/words": "other"})))
    assert (other["text"], "other teachers than those of the run" in other["why_not"]) == ([], True)
    nowhere = information(LocalBackend(Recommender(artifact)))
    assert (nowhere["vectors"], "no place to be kept" in nowhere["why_not"]) == ({}, True)


VECTORS = unit_vectors("tent")
WORDS = VECTORS["words"]


@pytest.mark.parametrize(
    ("items", "field", "message"),
    [
        ([], "items", "at least 1"),
        ([new_item(str(n)) for n in range(MAX_ITEMS + 1)], "items", f"at most {MAX_ITEMS}"),
        ([new_item("a"), new_item("a")], None, "'new-a' is given more than once"),
        ([{"item_id": "a"}], "items.0", "give `text` or `vectors`"),
        ([{"item_id": "", "vectors": VECTORS}], "items.0.item_id", "at least 1 character"),
        ([{"item_id": "x" * 513, "vectors": VECTORS}], "items.0.item_id", "at most 512"),
        ([{"item_id": "a", "vectors": VECTORS, "price": 3}], "items.0.price", "unknown key"),
        ([{"item_id": "a", "title": "x" * 501, "vectors": VECTORS}], "items.0.title", "at most 500"),
        ([{"item_id": "a", "text": {"title": "x" * (MAX_TEXT + 1)}}], "items.0.text.title", f"at most {MAX_TEXT}"),
        ([{"item_id": "a", "text": {"titel": "x"}}], "items.0.text.titel", "no text column 'titel'; there are: title"),
        ([{"item_id": "a", "text": "x"}], "items.0.text", "valid dictionary"),
        ([{"item_id": "a", "vectors": {"words": WORDS}}], "items.0.vectors", "expected vectors of both (4), words (8)"),
        ([{"item_id": "a", "vectors": {**VECTORS, "x": [1.0]}}], "items.0.vectors", "got those of both, words, x"),
        ([{"item_id": "a", "vectors": {**VECTORS, "words": WORDS[1:]}}], "items.0.vectors.words", "8 numbers, got 7"),
        ([{"item_id": "a", "vectors": {**VECTORS, "words": []}}], "items.0.vectors.words", "at least 1"),
        (
            [{"item_id": "a", "vectors": {**VECTORS, "words": [0.0] * 8}}],
            "items.0.vectors.words",
            "norm 1, got one of 0",
        ),
        ([{"item_id": "a", "vectors": {**VECTORS, "words": [1e300] * 8}}], "items.0.vectors.words", "got one of inf"),
        ([{"item_id": "a", "vectors": {**VECTORS, "words": ["0.1"] * 8}}], "items.0.vectors.words.0", "valid number"),
        ([new_item("b"), {"item_id": "a", "vectors": {**VECTORS, "words": [True] * 8}}], "items.1.vectors.words.0", ""),
    ],
)
def test_invalid_items_name_the_field_and_nothing_is_added(
    artifact: Path, store: Path, tmp_path: Path, items: list[Any], field: str | None, message: str
) -> None:
    with make_client(make_backend(artifact, store, WordEncoder(tmp_path))) as client:
        answer = add(client, *items)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert answer.json()["field"] in (field, "items" if field is None else field)
        assert message in answer.json()["message"]
        assert add(client, new_item("good")).json()["num_items"] == 61


@pytest.mark.parametrize(
    "content",
    [
        b'{"items": [{"item_id": "a", "vectors": {"both": [NaN, 0, 0, 1], "words": [Infinity, 0, 0, 0, 0, 0, 0, 0]}}]}',
        b'{"items": [{"item_id": "\\ud800", "text": {"title": "a"}}]}',
        b'{"items": [{"item_id": "a", "text": {"\\ud800": "a"}}]}',
        b'{"items": [{"item_id": "a", "text": {"title": "\\ud800"}}]}',
        b'{"items": [{"item_id": "a", "title": "\\ud800", "text": {"title": "b"}}]}',
        b'{"items": 3}',
        b"\xff",
    ],
)
def test_numbers_and_texts_that_are_none_are_refused(
    artifact: Path, store: Path, tmp_path: Path, content: bytes
) -> None:
    with make_client(make_backend(artifact, store, WordEncoder(tmp_path))) as client:
        answer = client.post("/v1/items", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
        assert set(answer.json()) == {"code", "message", "field"}
        assert not store.exists()


def test_an_endpoint_without_encoders_says_which_vectors_to_send(artifact: Path, store: Path) -> None:
    with make_client(make_backend(artifact, store)) as client:
        answer = add(client, new_item("rope"), {"item_id": "a", "text": {"title": "Tent"}})
        assert (answer.status_code, answer.json()["field"]) == (422, "items.1.text")
        assert "send `vectors` of both (4), words (8)" in answer.json()["message"]


def test_an_artifact_without_a_projection_says_why(tmp_path: Path, store: Path) -> None:
    plain = write_artifact(tmp_path / "plain")
    with make_client(make_backend(plain, store)) as client:
        answer = add(client, new_item("tent"))
        assert answer.status_code == 422
        assert "cannot take new items: it was exported without a projection" in answer.json()["message"]
    manifest = {**read_manifest(plain), "new_items": {"none": "mostpop keeps no table"}}
    seal(plain, {name: value for name, value in manifest.items() if name not in ("digest", "files")})
    with make_client(make_backend(plain, store)) as client:
        assert "mostpop keeps no table" in add(client, new_item("tent")).json()["message"]
        assert client.get("/v1/model").json()["new_items"]["why_not"] == "mostpop keeps no table"


def test_a_damaged_projection_is_said_and_the_rest_serves(tmp_path: Path, store: Path) -> None:
    artifact = write_growable(tmp_path / "artifact")
    backend = make_backend(artifact, store)
    (artifact / PROJECTION_CONFIG_FILE).write_text("{}")
    with make_client(backend) as client:
        assert "new_items.safetensors: damaged" in add(client, new_item("tent")).json()["message"]
        assert len(scores(client, ["id-1"])) == 60


def test_nothing_is_taken_where_it_could_not_be_kept(artifact: Path) -> None:
    with make_client(LocalBackend(Recommender(artifact))) as client:
        assert "no place to be kept" in add(client, new_item("tent")).json()["message"]
    with make_client(LocalBackend(None)) as client:
        assert add(client, new_item("tent")).status_code == 503


def test_a_run_that_broke_is_said(artifact: Path, store: Path, tmp_path: Path) -> None:
    class Broken(WordEncoder):
        def vectors(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
            raise ArtifactError("features: was made again")

    with make_client(make_backend(artifact, store, Broken(tmp_path))) as client:
        answer = add(client, {"item_id": "a", "text": {"title": "Tent"}})
        assert (answer.status_code, "features: was made again" in answer.json()["message"]) == (503, True)
        assert add(client, new_item("tent")).status_code == 200


def test_a_restart_keeps_the_items(artifact: Path, store: Path) -> None:
    with make_client(make_backend(artifact, store)) as client:
        for word in ("tent", "rope", "lamp"):
            add(client, new_item(word))
        before = scores(client, ["new-lamp", "id-2"])
    with make_client(make_backend(artifact, store)) as client:
        assert scores(client, ["new-lamp", "id-2"]) == before, "one by one or together: equal rows"
        assert client.get("/v1/model").json()["new_items"]["added"] == 3


def test_other_replicas_learn_of_it(artifact: Path, store: Path) -> None:
    with make_client(make_backend(artifact, store)) as one, make_client(make_backend(artifact, store)) as two:
        assert add(one, new_item("tent")).json()["num_items"] == 61
        wait_for(lambda: bool(two.get("/v1/model").json()["num_items"] == 61))
        assert scores(two, ["new-tent"]) == scores(one, ["new-tent"])
        assert add(two, new_item("rope"), new_item("tent")).json()["known"] == ["new-tent"]
        wait_for(lambda: bool(one.get("/v1/model").json()["num_items"] == 62))
        assert scores(two, ["id-5"]) == scores(one, ["id-5"])


def test_the_first_of_two_replicas_wins(artifact: Path, store: Path) -> None:
    """A replica that does not know the item yet must not write another one under its id."""
    one, two = (make_client(make_backend(artifact, store)) for _ in range(2))  # nothing watches: no `with`
    assert add(one, new_item("tent")).json()["added"] == ["new-tent"]
    late = add(two, {**new_item("rope"), "item_id": "new-tent"}).json()
    assert (late["added"], late["known"], late["num_items"]) == ([], ["new-tent"], 61)
    assert scores(two, ["id-5"]) == scores(one, ["id-5"])


def test_another_student_of_the_same_teachers_makes_its_own_rows(tmp_path: Path, store: Path) -> None:
    with make_client(make_backend(write_growable(tmp_path / "one"), store)) as client:
        add(client, new_item("tent"))
        first = scores(client, ["id-3"])["new-tent"]
    with make_client(make_backend(write_growable(tmp_path / "two", seed=1), store)) as client:
        assert scores(client, ["id-3"])["new-tent"] != first
        assert client.get("/v1/model").json()["new_items"]["missing"] == 0


def test_items_of_other_teachers_are_missing_until_they_are_sent_again(tmp_path: Path, store: Path) -> None:
    with make_client(make_backend(write_growable(tmp_path / "one"), store)) as client:
        add(client, new_item("tent"), new_item("rope"))
    tuned_again = write_growable(tmp_path / "two", parents={"teach/words": "a1", "teach/both": "b0"})
    with make_client(make_backend(tuned_again, store)) as client:
        information = client.get("/v1/model").json()["new_items"]
        assert (information["added"], information["missing"]) == (0, 2)
        assert add(client, new_item("tent")).json()["added"] == ["new-tent"]
        information = client.get("/v1/model").json()["new_items"]
        assert (information["added"], information["missing"]) == (1, 1)


def test_every_loaded_model_grows(tmp_path: Path, store: Path) -> None:
    backend = make_backend(write_growable(tmp_path / "one"), store)
    two, plain = Recommender(write_growable(tmp_path / "two", seed=1)), Recommender(write_artifact(tmp_path / "three"))
    incumbent = backend.models.incumbent
    assert incumbent is not None
    backend.models = Models(incumbent, as_served(two, "v2"), 0.0, (incumbent, as_served(plain, "v3")))
    with make_client(backend) as client:
        add(client, new_item("tent"))
        sizes = [(one.version, one.recommender.num_items, one.growth.missing) for one in backend.models.loaded]
        assert sizes == [
            (incumbent.version, 61, frozenset()),
            ("v2", 61, frozenset()),
            (incumbent.version, 61, frozenset()),
            ("v3", 60, {"new-tent"}),
        ]
        assert backend.models.incumbent is backend.models.others[0]


def test_requests_are_answered_while_a_model_grows(
    artifact: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()

    class Slow(Growing):
        def _take_up(self, served: Served, last: int) -> None:
            started.set()
            assert go_on.wait(DEADLINE_S)
            super()._take_up(served, last)

    backend = LocalBackend(Recommender(artifact), Slow(ItemStore(store)))
    with make_client(backend) as client:
        answers: list[Any] = []
        adding = threading.Thread(target=lambda: answers.append(add(client, new_item("tent"))))
        adding.start()
        assert started.wait(DEADLINE_S)
        assert len(scores(client, ["id-1"])) == 60
        go_on.set()
        adding.join()
        assert answers[0].json()["added"] == ["new-tent"]
        assert len(scores(client, ["id-1"])) == 61


def test_many_at_once_are_all_added(artifact: Path, store: Path) -> None:
    words = [f"w{number}" for number in range(40)]
    with make_client(make_backend(artifact, store)) as client:
        with ThreadPoolExecutor(len(words)) as pool:
            answers = list(pool.map(lambda word: add(client, new_item(word)), words))
        assert [answer.json()["added"] for answer in answers] == [[f"new-{word}"] for word in words]
        assert len(scores(client, ["id-1"])) == 100


def test_a_growth_that_fails_is_said_and_not_tried_for_ever(
    artifact: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise ArtifactError("no memory for it")

    with make_client(make_backend(artifact, store)) as client:
        monkeypatch.setattr(Recommender, "grown", failing)
        body = add(client, new_item("tent")).json()
        assert list(body["refused"]) == ["new-tent"]
        assert "the server's log has the reason" in body["refused"]["new-tent"]
        assert len(scores(client, ["id-1"])) == 60
        assert client.get("/v1/model").json()["new_items"]["missing"] == 1
        monkeypatch.undo()
        assert add(client, new_item("rope")).json()["num_items"] == 61


def test_a_store_that_is_gone_or_damaged_is_said(artifact: Path, store: Path) -> None:
    with make_client(make_backend(artifact, store)) as client:
        add(client, new_item("tent"))
        store.unlink()
        answer = add(client, new_item("rope"))
        assert (answer.status_code, "was removed or replaced while serving" in answer.json()["message"]) == (503, True)
        assert len(scores(client, ["new-tent"])) == 61
    damaged = store.with_name("damaged.sqlite")
    damaged.write_bytes(b"this is no database" * 100)
    with make_client(make_backend(artifact, damaged)) as client:
        answer = add(client, new_item("rope"))
        assert (answer.status_code, answer.json()["code"]) == (503, "store_down")
        assert "send them again" in answer.json()["message"]
        assert len(scores(client, ["id-1"])) == 60


def test_trouble_with_the_store_is_logged_once(artifact: Path, store: Path, caplog: pytest.LogCaptureFixture) -> None:
    store.parent.mkdir()
    store.write_bytes(b"this is no database" * 100)
    backend = make_backend(artifact, store)
    assert backend.growing is not None

    for _ in range(2):
        backend.growing.look(backend.models.loaded)
    assert len([record for record in caplog.records if "cannot be read" in record.getMessage()]) == 1
    store.unlink()
    backend.growing.look(backend.models.loaded)
    assert "from their store: it works again" in caplog.text


def test_what_is_kept_in_a_file_that_was_replaced_is_not_acknowledged(tmp_path: Path) -> None:
    """It would go where nobody looks: to the file that was deleted."""
    path, item = tmp_path / "items.sqlite", KeptItem("new", None, {}, {})
    store = ItemStore(path)
    store.add("t", [item])
    path.unlink()
    ItemStore(path).add("t", [item])  # another replica, started since
    with pytest.raises(StorageError, match="replaced while serving"):
        store.add("t", [KeptItem("lost", None, {}, {})])


def test_items_survive_a_killed_process(artifact: Path, store: Path) -> None:
    """The process is killed as soon as it acknowledged."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, uvicorn; from pathlib import Path; from serve.app import create_app; "
        "from serve.settings import Settings; from tests.serve.test_new_items import make_backend; "
        "backend = make_backend(Path(sys.argv[1]), Path(sys.argv[2])); "
        "uvicorn.run(create_app(backend, Settings()), port=int(sys.argv[3]), log_level='warning')"
    )
    command = [sys.executable, "-c", code, str(artifact), str(store), str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    url = f"http://127.0.0.1:{port}"
    try:

        def ready() -> bool:
            assert process.poll() is None
            try:
                return httpx.get(f"{url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready)
        answer = httpx.post(f"{url}/v1/items", json={"items": [new_item("tent"), new_item("rope")]}, timeout=DEADLINE_S)
        process.send_signal(signal.SIGKILL)
        assert answer.json()["added"] == ["new-tent", "new-rope"]
    finally:
        process.kill()
        process.wait()
    with make_client(make_backend(artifact, store)) as client:
        assert {"new-tent", "new-rope"} <= set(scores(client, ["id-1"]))


def test_the_poll_is_about_twice_a_second() -> None:
    assert 0.2 <= serve.growing.POLL_S <= 0.6


def test_a_call_of_the_largest_size_fits_the_body_limit(artifact: Path, store: Path) -> None:
    items = [new_item(f"w{number}") for number in range(MAX_ITEMS)]
    assert len(json.dumps(items)) < 1_000_000
    with make_client(make_backend(artifact, store)) as client:
        assert add(client, *items).json()["num_items"] == 160
