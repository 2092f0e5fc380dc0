"""The endpoint of a streaming model: it answers, learns what it is sent, swaps versions, loses nothing in a kill."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from components.data.ratings import RatingsConfig
from components.embedding_size.config import METHODS, Method
from components.errors import ArtifactError, UserError
from components.streaming import copy_for_ranking, is_stream, read_learner
from pipelines.serving.stream_endpoint import learning_folder
from serve.settings import Settings
from serve.stream.app import create_stream_app
from serve.stream.learning import Learning, rating_scale
from tests.serve.stream.models import finished_stream


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_stream(tmp_path_factory.mktemp("stream"))


@pytest.fixture
def learning(artifact: Path, tmp_path: Path) -> Iterator[Learning]:
    held = Learning(artifact, tmp_path / "serving", rating_scale(artifact))
    yield held
    held.close()


def client_of(learning: Learning) -> TestClient:
    app = create_stream_app(learning, Settings())
    return TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1), raise_server_exceptions=False)


def posted(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_until(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(600):
        if condition():
            return
        tick.wait(0.1)
    raise AssertionError("waited a minute")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", ["binary", "five-class"])
def test_the_copy_scores_as_the_model(tmp_path: Path, method: Method, task: str) -> None:
    folder = finished_stream(tmp_path, method, task=task)
    assert is_stream(folder)
    learner = read_learner(folder)
    users, items = (int((one.counts > 0).sum()) for one in learner.frequencies)
    copy = copy_for_ranking(learner, users, items)
    for user in (0, users - 1):
        logits = learner.logits(torch.full((items,), user), torch.arange(items))
        if task == "binary":
            expected = torch.sigmoid(logits[:, 0])
        else:
            expected = logits.softmax(1) @ torch.arange(5.0)
        torch.testing.assert_close(copy.scores(user), expected, rtol=1e-4, atol=1e-4)
        assert copy.score(user, 2) == pytest.approx(float(expected[2]), abs=1e-4)


def test_a_rating_changes_the_prediction_and_the_version(learning: Learning) -> None:
    client = client_of(learning)
    before = posted(client, "predict", user_id="u1", item_id="i2")
    for _ in range(6):
        assert posted(client, "events", user_id="u1", item_id="i2", value=5)["stored"] == 1
    assert posted(client, "predict", user_id="u1", item_id="i2") == before  # durable, not learned yet
    assert learning.look() == 6
    after = posted(client, "predict", user_id="u1", item_id="i2")
    assert (before["model"], after["model"], after["learned_events"]) == ("v1", "v2", 6)
    assert after["score"] != before["score"]
    status = client.get("/v1/model").json()
    assert status["learned_events"] == status["predicted_first"]["events"] == 6
    assert 0 <= status["predicted_first"]["accuracy"] <= 1


def test_recommendations_are_the_best_scores_without_what_was_rated_here(learning: Learning) -> None:
    client = client_of(learning)
    answer = posted(client, "recommend", user_id="u3", k=5)
    scores = learning.version.copy.scores(learning.users.find("u3") or 0)
    assert [item["score"] for item in answer["items"]] == pytest.approx(sorted(scores.tolist(), reverse=True)[:5])
    best = answer["items"][0]["item_id"]
    posted(client, "events", user_id="u3", item_id=best, value=4)
    learning.look()
    items = posted(client, "recommend", user_id="u3", k=1000)["items"]
    assert best not in [item["item_id"] for item in items]
    assert len(items) == len(learning.items) - 1
    kept = posted(client, "recommend", user_id="u3", k=1000, exclude_seen=False)["items"]
    assert best in [item["item_id"] for item in kept]


def test_a_new_user_begins_with_what_is_popular_and_then_has_an_embedding(learning: Learning) -> None:
    client = client_of(learning)
    first = posted(client, "recommend", user_id="eve", k=3)
    counts = learning.learner.frequencies[1].counts
    assert first["fallback"] == "popularity"
    assert first["items"][0]["item_id"] == learning.items.ids[int(counts.argmax())]
    assert posted(client, "predict", user_id="eve", item_id="i1")["score"] is None
    told = posted(client, "events", user_id="eve", item_id="brand-new", value=4.5)
    assert told["unknown_items"] == ["brand-new"]
    learning.look()
    assert posted(client, "recommend", user_id="eve", k=3)["fallback"] is None
    assert posted(client, "predict", user_id="eve", item_id="brand-new")["score"] is not None


@pytest.mark.parametrize(
    ("body", "status", "field", "message"),
    [
        ({"user_id": "u1", "item_id": "i1"}, 422, "value", "a rating is needed; give it as `value`"),
        ({"user_id": "u1", "item_id": "i1", "value": 7}, 422, "value", "expected a rating from 0.5 to 5, got 7"),
        ({"events": [{"user_id": "u1", "item_id": "i1", "value": 0}]}, 422, "events.0.value", "got 0"),
        ({"user_id": "u1", "item_id": "i1", "value": "NaN"}, 422, "value", "finite number"),
        ({"user_id": "u1", "value": 3}, 422, None, "an event needs `user_id` and `item_id`"),
    ],
)
def test_bad_ratings_are_refused_and_nothing_is_stored(
    learning: Learning, body: dict[str, Any], status: int, field: str | None, message: str
) -> None:
    answer = client_of(learning).post("/v1/events", json=body)
    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert message in answer.json()["message"]
    assert learning.look() == 0


def test_times_that_go_backwards_are_learned_as_they_arrive(learning: Learning) -> None:
    client = client_of(learning)
    for time in (2000, 1000):
        posted(client, "events", user_id="u1", item_id="i1", value=4, timestamp=time)
    assert [event.timestamp for _, event in learning.events.since(0, 9)] == [2_000_000_000, 1_000_000_000]
    assert learning.look() == 2


def test_endless_new_ids_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    folder = finished_stream(tmp_path, max_entities=30)
    learning = Learning(folder, tmp_path / "serving", rating_scale(folder))
    client = client_of(learning)
    for number in range(30 - len(learning.users)):
        posted(client, "events", user_id=f"new-{number}", item_id="i1", value=4)
        learning.look()
    answer = client.post("/v1/events", json={"user_id": "one-more", "item_id": "i1", "value": 4})
    assert answer.status_code == 409
    assert "takes 30 users and has them; raise stream.max_entities" in answer.json()["message"]
    posted(client, "events", user_id="u1", item_id="i1", value=4)
    assert learning.look() == 1
    learning.close()


def test_after_a_kill_the_same_events_give_the_same_model(artifact: Path, tmp_path: Path) -> None:
    """A copy that never stopped, and one that is opened anew behind its last checkpoint."""
    whole, killed = (Learning(artifact, tmp_path / name, rating_scale(artifact)) for name in ("a", "b"))
    for part in range(3):
        for one in (whole, killed):
            client = client_of(one)
            for number in range(12):
                posted(client, "events", user_id=f"u{number % 5}", item_id=f"n{part}-{number}", value=number % 5 + 0.5)
            one.look()
        if part == 0:
            killed.save()
    killed.events.close()  # no more is saved: as kill -9
    again = Learning(artifact, tmp_path / "b", rating_scale(artifact))
    assert again.arrival == 12
    assert again.version.arrival == 12
    for events in (12, 12):  # in the batches in which they came
        again.learner.config.__dict__["batch_size"] = events
        assert again.look() == events
    mine, theirs = again.learner.tensors(), whole.learner.tensors()
    assert all(torch.equal(one, theirs[name]) for name, one in mine.items())
    assert again.users.ids == whole.users.ids
    assert again.seen == whole.seen
    for one in (whole, again):
        one.close()


def test_what_was_learned_belongs_to_one_artifact(artifact: Path, tmp_path: Path) -> None:
    first = Learning(artifact, tmp_path / "serving", rating_scale(artifact))
    first.save()
    first.close()
    other = finished_stream(tmp_path / "other", "fixed")
    with pytest.raises(ArtifactError, match="began with another model than the one that is served"):
        Learning(other, tmp_path / "serving", rating_scale(other))


def test_it_learns_in_its_thread_while_it_answers(artifact: Path, tmp_path: Path) -> None:
    learning = Learning(artifact, tmp_path / "serving", rating_scale(artifact)).start()
    client = client_of(learning)
    for number in range(60):
        posted(client, "events", user_id=f"u{number % 7}", item_id=f"i{number % 11}", value=4)
        answer = posted(client, "recommend", user_id=f"u{number % 7}", k=3)
        assert len(answer["items"]) == 3
    wait_until(lambda: learning.version.arrival == 60)
    assert learning.version.number > 1
    learning.close()
    again = Learning(artifact, tmp_path / "serving", RatingsConfig())
    assert again.arrival == 60
    again.close()


def test_health_readiness_and_metrics(learning: Learning) -> None:
    client = client_of(learning)
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "model": "v1"}
    assert "distilrec_requests" in client.get("/metrics").text


def test_events_lie_below_the_run(tmp_path: Path) -> None:
    artifact = tmp_path / "run" / "stream" / "esapn" / "seed-0"
    artifact.mkdir(parents=True)
    with pytest.raises(UserError, match="lies in no run, so events have no place"):
        learning_folder(artifact, None)
    (tmp_path / "run" / "prepare").mkdir()
    assert learning_folder(artifact, None) == tmp_path.resolve() / "run" / "serving" / "esapn-seed-0"
    with pytest.raises(UserError, match="not in Redis; name a folder"):
        learning_folder(artifact, "redis://localhost/0")
