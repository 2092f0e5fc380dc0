"""Rankings in threads, and short ones without."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from components.catalog_filters import Filter
from components.recommender import Query, Recommendation, Recommender
from serve.models import Served
from serve.pace import CROWDED, SHORT_S, Pace
from serve.workers import Workers

PLAIN = Query([])


class Named:
    """Answers with the name of the thread that asked."""

    def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
        return [Recommendation([], [threading.current_thread().name]) for _ in queries]


def served() -> Served:
    return Served("v1", cast(Recommender, cast(Any, Named())))


def where(workers: Workers, model: Served, queries: int = 1, query: Query = PLAIN) -> str:
    """The thread in which `model` ranks."""
    answers = asyncio.run(workers.rank(model, [query] * queries))
    return answers[0].unknown_items[0]


def test_what_is_known_to_be_short_is_ranked_at_once() -> None:
    workers, model, here = Workers(), served(), threading.current_thread().name
    assert where(workers, model).startswith("model")  # nobody knows yet
    assert where(workers, model) == here
    assert where(workers, model, queries=32).startswith("model")  # nothing is known of large batches


def test_a_model_on_trial_always_gets_a_thread() -> None:
    workers, model = Workers(trusting=False), served()
    assert all(where(workers, model).startswith("model") for _ in range(3))


@pytest.mark.parametrize("query", [Query([], explain=True), Query([], filter=Filter.of({"color": ["red"]}))])
def test_what_costs_more_than_a_ranking_gets_a_thread(query: Query) -> None:
    workers, model, here = Workers(), served(), threading.current_thread().name
    assert where(workers, model, query=query).startswith("model")
    where(workers, model)
    assert where(workers, model) == here
    assert where(workers, model, query=query).startswith("model")


def test_what_became_long_gets_a_thread_again() -> None:
    pace = Pace()
    assert not pace.is_short(4)
    pace.note(4, wall_s=0.001, cpu_s=0.001, crowded=False)
    assert pace.is_short(4)
    assert pace.is_short(7)
    assert not pace.is_short(8)
    pace.note(4, wall_s=1.0, cpu_s=0.0, crowded=False)  # it slept
    assert not pace.is_short(4)


@pytest.mark.parametrize(("wall_s", "short"), [(0.5 * CROWDED * SHORT_S, True), (2 * CROWDED * SHORT_S, False)])
def test_waiting_for_other_threads_is_not_held_against_a_model(wall_s: float, short: bool) -> None:
    pace = Pace()
    pace.note(1, wall_s=wall_s, cpu_s=0.001, crowded=True)
    assert pace.is_short(1) == short
