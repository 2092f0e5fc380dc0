from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from components.artifacts.format import seal
from components.artifacts.models import load_model
from components.errors import ArtifactError
from components.golden import write_golden
from components.recommender import Query, Recommendation, Recommender
from components.schema import MANIFEST_FILE
from serve.backend import LocalBackend, as_served
from serve.errors import ApiError
from serve.health import DEADLINE_S, PERIOD_S, TIMEOUT_S, rank_once
from serve.loading import load
from serve.models import Models, Served
from tests.tiny_artifact import write_artifact


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return as_served(Recommender(write_artifact(tmp_path_factory.mktemp("health") / "artifact")))


def test_a_model_that_ranks_is_healthy(served: Served) -> None:
    backend = LocalBackend(served.recommender)
    asyncio.run(rank_once(backend.models, backend.answer_all))


def test_a_model_that_is_stuck_is_not(served: Served) -> None:
    released = threading.Event()

    async def stuck(model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        await asyncio.to_thread(released.wait, 60)
        return []

    async def probe() -> None:
        try:
            await rank_once(Models(served), stuck, deadline_s=0.1)
        finally:
            released.set()

    with pytest.raises(RuntimeError, match=r"no ranking within 0.1 s, the model is stuck"):
        asyncio.run(probe())


def test_a_candidate_that_is_broken_does_not_cost_the_replica(served: Served) -> None:
    candidate, asked = Served("v2", served.recommender), []

    async def ask(model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        asked.append(model)
        return model.recommender.answer(queries)

    asyncio.run(rank_once(Models(served, candidate, 1.0), ask))
    assert asked == [served]


def test_a_model_that_ranks_nothing_is_not(served: Served) -> None:
    async def ask(model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        return [Recommendation([], [])]

    with pytest.raises(RuntimeError, match="ranks nothing"):
        asyncio.run(rank_once(Models(served), ask))


def test_nothing_loaded_is_not_healthy() -> None:
    backend = LocalBackend(None)
    with pytest.raises(ApiError, match="loading"):
        asyncio.run(rank_once(backend.models, backend.answer_all))


def test_a_replica_that_stands_still_is_found_within_half_a_minute() -> None:
    """Three checks must fail; the rest is for the new replica to start."""
    assert DEADLINE_S < TIMEOUT_S
    assert 1.1 * PERIOD_S + 3 * TIMEOUT_S < 20


def test_loading_checks_the_golden_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_artifact(tmp_path / "artifact")
    logging.getLogger("distilrec.serve").propagate = True
    assert load(folder).num_items == 60
    assert "no golden.json: its answers were not checked" in caplog.text
    write_golden(load_model(write_artifact(tmp_path / "other", seed=1)), folder)
    (folder / MANIFEST_FILE).unlink()
    seal(folder, {})
    with pytest.raises(ArtifactError, match="answered otherwise"):
        load(folder)
