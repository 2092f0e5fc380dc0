from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from components.recommender import Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.models import Models, Served
from serve.settings import Settings
from serve.snapshots import GONE_S, Snapshots, merge
from serve.telemetry import Telemetry
from tests.serve.clients import make_client
from tests.tiny_artifact import write_artifact


def values(text: str, name: str) -> dict[str, float]:
    """A metric's values by replica."""
    return {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_a_scrape_of_one_replica_shows_all(tmp_path: Path) -> None:
    clients = []
    backend = LocalBackend(Recommender(write_artifact(tmp_path / "artifact")))
    for replica in ("a", "b/c"):
        app = create_app(backend, Settings(metrics_folder=str(tmp_path / "shared")), replica)
        clients.append((TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)), app.state.telemetry))
    for times, (client, telemetry) in enumerate(clients, start=1):
        for _ in range(times):
            client.post("/v1/recommend", json={"history": ["nope"]})
        telemetry.publish()
    for client, _ in clients:
        text = client.get("/metrics").text
        assert values(text, "distilrec_unknown_items_total") == {"a": 1.0, "b/c": 2.0}
        assert text.count("# TYPE distilrec_unknown_items_total") == 1


def test_a_replica_that_is_gone_is_no_longer_shown(tmp_path: Path) -> None:
    one, other = Snapshots(tmp_path, "one"), Snapshots(tmp_path, "other")
    other.write(b"# HELP x y\n# TYPE x counter\nx 1\n")
    file = tmp_path / "other.prom"
    assert b"x 1" in one.merged(b"")
    os.utime(file, (1, file.stat().st_mtime - GONE_S - 1))
    assert b"x 1" not in one.merged(b"")
    assert not file.exists()


def test_a_place_that_cannot_be_written_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "shared"
    backend = LocalBackend(Recommender(write_artifact(tmp_path / "artifact")))
    app = create_app(backend, Settings(metrics_folder=str(folder)), "a")
    client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    shutil.rmtree(folder)  # as whoever cleans the system's temporary folder does
    logging.getLogger("distilrec.serve").propagate = True
    for _ in range(3):
        app.state.telemetry.publish()  # as at every health check: a replica must not be replaced for it
        assert client.post("/v1/recommend", json={"history": ["id-1"]}).status_code == 200
        assert values(client.get("/metrics").text, "distilrec_batch_size_count")["a"] >= 1
    assert caplog.text.count("cannot be shown the metrics of this one") == 1


def test_a_text_is_due_once_a_second(tmp_path: Path) -> None:
    now = 100.0
    snapshots = Snapshots(tmp_path, "a", lambda: now)
    assert snapshots.due()
    snapshots.write(b"")
    assert not snapshots.due()
    now = 101.0
    assert snapshots.due()


def test_texts_are_merged_by_metric() -> None:
    first = b'# HELP a A\n# TYPE a counter\na{r="1"} 1\n# HELP b B\n# TYPE b gauge\nb{r="1"} 2\n'
    second = b'# HELP b B\n# TYPE b gauge\nb{r="2"} 3\n# HELP c C\n# TYPE c gauge\nc 4\n'
    assert merge([first, second]).decode().splitlines() == [
        "# HELP a A",
        "# TYPE a counter",
        'a{r="1"} 1',
        "# HELP b B",
        "# TYPE b gauge",
        'b{r="1"} 2',
        'b{r="2"} 3',
        "# HELP c C",
        "# TYPE c gauge",
        "c 4",
    ]


def test_the_models_are_those_of_the_moment(tmp_path: Path) -> None:
    recommender = Recommender(write_artifact(tmp_path / "artifact"))
    models = Models(Served("v1", recommender))
    telemetry = Telemetry("a", lambda: models)
    assert 'role="incumbent",version="v1"' in telemetry.text().decode()
    models = Models(Served("v1", recommender), Served("v2", recommender), 0.25)
    text = telemetry.text().decode()
    assert 'role="candidate",version="v2"' in text
    assert values(text, "distilrec_canary_share") == {"a": 0.25}
    models = Models(Served("v2", recommender))
    assert 'version="v1"' not in telemetry.text().decode()


def test_an_artifact_that_vanishes_goes_on_to_answer(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    client = make_client(LocalBackend(Recommender(folder)))
    before = client.get("/v1/model").json()
    shutil.rmtree(folder)
    assert client.post("/v1/recommend", json={"history": ["id-1"]}).status_code == 200
    assert client.get("/v1/model").json() == before
