"""Requests that a candidate cannot take, or fails at, are answered by the incumbent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from components.recommender import Query, Recommendation, Recommender
from serve.backend import LocalBackend, as_served
from serve.models import Models, Served
from serve.release.trial import CandidateFailedError
from tests.serve.clients import make_client
from tests.tiny_artifact import write_artifact

RED = {"history": ["id-1"], "k": 3, "filter": {"allow": {"color": ["red"]}}}
PLAIN = {"history": ["id-1"], "k": 3}
SINGLE, BATCH = "/v1/recommend", "/v1/recommend:batch"


class Trying(LocalBackend):
    """Everybody meets a candidate of another catalog, which has no attributes.

    Attributes:
        refusals: what the candidate could not take.
        fails: whether it fails at everything else.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(Recommender(write_artifact(folder / "first", attributes=True)))
        self.incumbent = self.models.incumbent
        self.candidate = as_served(Recommender(write_artifact(folder / "second", seed=1)), "v0002")
        self.models = Models(self.incumbent, self.candidate, 1.0)
        self.refusals: list[str] = []
        self.fails = False

    async def answer_all(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        if self.fails and model is self.candidate:
            raise CandidateFailedError("it is stuck")
        return await super().answer_all(model, queries)

    def refused(self, model: Served, reason: str) -> None:
        assert model is self.candidate
        self.refusals.append(reason)


@pytest.fixture
def backend(tmp_path: Path) -> Trying:
    return Trying(tmp_path)


@pytest.fixture
def client(backend: Trying) -> TestClient:
    return make_client(backend)


def ask(client: TestClient, *requests: dict[str, Any], status: int = 200) -> list[dict[str, Any]]:
    """The answers of single requests, after those of the same requests in one call were seen to be equal."""
    answers = [client.post(SINGLE, json=request) for request in requests]
    assert {answer.status_code for answer in answers} == {status}
    together = client.post(BATCH, json={"requests": list(requests)})
    assert together.status_code == status
    bodies = [answer.json() for answer in answers]
    if status == 200:
        assert together.json()["results"] == bodies
    return bodies


def test_a_filter_that_the_incumbent_can_serve_does_not_fail(client: TestClient, backend: Trying) -> None:
    assert backend.incumbent is not None
    red, plain = ask(client, RED, PLAIN)
    assert red["model"] == backend.incumbent.name
    assert len(red["items"]) == 3
    assert plain["model"] == backend.candidate.name
    assert len(backend.refusals) == 2  # alone and in a batch
    assert all("no item attributes" in reason for reason in backend.refusals)


def test_a_filter_that_nobody_can_serve_is_the_requests_fault(client: TestClient, backend: Trying) -> None:
    (body,) = ask(client, {"history": ["id-1"], "filter": {"allow": {"brand": ["x"]}}}, status=422)
    assert body["field"] == "filter.allow.brand"
    assert "color" in body["message"]  # what the incumbent has
    assert backend.refusals == []


def test_a_filter_that_the_named_model_lacks_is_the_requests_fault(client: TestClient, backend: Trying) -> None:
    (body,) = ask(client, {**RED, "model": "v0002"}, status=422)
    assert body["field"] == "filter.allow.color"
    assert backend.refusals == []


def test_where_the_candidate_fails_the_incumbent_answers(client: TestClient, backend: Trying) -> None:
    assert backend.incumbent is not None
    backend.fails = True
    (body,) = ask(client, PLAIN)
    assert body["model"] == backend.incumbent.name
    assert backend.refusals == []
