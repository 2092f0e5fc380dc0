"""The Grafana dashboard asks for metrics and labels that the endpoint has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.recommender import Recommender
from serve.backend import LocalBackend
from tests.serve.clients import make_client
from tests.tiny_artifact import write_artifact

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "distilrec.json"
WORDS = {"le", "by", "sum", "rate", "count", "max", "histogram_quantile"}


def queries() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of every series by its name, after a request of each kind."""
    client = make_client(LocalBackend(Recommender(write_artifact(tmp_path_factory.mktemp("d") / "artifact"))))
    client.post("/v1/recommend", json={"history": ["nope"]})
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_panel_has_a_query() -> None:
    titles = [panel["title"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(set(titles)) == len(titles)
    for title in ("Requests by status", "Latency", "Shed", "Errors", "Requests by model version", "Canary share"):
        assert title in titles


@pytest.mark.parametrize("query", queries())
def test_a_query_names_metrics_and_labels_that_exist(query: str, exposed: dict[str, set[str]]) -> None:
    names = set(re.findall(r"distilrec_\w+", query))
    assert names
    assert names <= set(exposed)
    plain = re.sub(r'"[^"]*"|\[[^]]*\]', "", query)
    labels = set(re.findall(r"\b[a-z_]+\b", plain)) - names - WORDS
    assert labels <= set.union(*(exposed[name] for name in names))
