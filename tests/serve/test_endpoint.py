"""What one replica does with models that misbehave; without Ray Serve around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from ray import serve as ray_serve

from components.recommender import Query
from serve.endpoint import Endpoint
from serve.models import Models, Served
from serve.release.policy import Policy
from serve.release.recorder import Recorder
from serve.release.trial import CandidateFailedError, Trial
from serve.settings import Settings
from serve.workers import Workers
from tests.serve.release.worlds import Scripted, served, walk

POLICY = Policy(deadline_seconds=0.3)


class Stuck(Scripted):
    """Does not come back before `gate` opens."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__(seconds=1.0)
        self.wait = lambda _: self._pass(gate)

    def _pass(self, gate: threading.Event) -> None:
        assert gate.wait(60)


@pytest.fixture(autouse=True)
def in_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the batching of Ray Serve asks of the replica that it runs in."""
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=1024))
    monkeypatch.setattr(ray_serve, "get_replica_context", lambda: context)


def replica(incumbent: Served, timeout_s: float = 10.0) -> Any:
    """A replica of a line on which nothing is tried yet."""
    deployment: Any = Endpoint
    made = object.__new__(deployment.func_or_class.__bases__[0])  # without the ASGI wrapper around it
    made.settings, made.workers, made._apart = Settings(timeout_s=timeout_s), Workers(), WeakKeyDictionary()
    made.follower = SimpleNamespace(models=Models(incumbent), trial=None, recorder=Recorder())
    made.histories = SimpleNamespace(close=lambda: None)
    return made


def tried(endpoint: Any, candidate: Served) -> Trial:
    """Begin a trial of `candidate` for everybody."""
    follower, incumbent = endpoint.follower, endpoint.models.incumbent
    follower.trial = Trial(incumbent, candidate, POLICY, follower.recorder)
    follower.models = Models(incumbent, candidate, 1.0)
    return follower.trial  # type: ignore[no-any-return]


Run = Callable[[Callable[[threading.Event], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One event loop for all tests: the queues of Ray Serve's batching belong to the functions and to one loop."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def run(loop: asyncio.Runner) -> Run:
    """Runs a story that gets the gate of its stuck models; it is opened in the end."""

    def told(story: Callable[[threading.Event], Coroutine[Any, Any, None]]) -> None:
        gate = threading.Event()
        try:
            loop.run(asyncio.wait_for(story(gate), 60))
        finally:
            gate.set()

    return told


async def failing(endpoint: Any, model: Served, count: int) -> None:
    """Ask a model `count` times at once; it fails every time."""
    answers = [endpoint.answer(model, walk(number)) for number in range(count)]
    found = await asyncio.gather(*answers, return_exceptions=True)
    assert {type(one) for one in found} == {CandidateFailedError}


def test_a_stuck_candidate_is_not_held_against_the_next_one(run: Run) -> None:
    async def story(gate: threading.Event) -> None:
        endpoint = replica(served(Scripted()))
        stuck, following = served(Stuck(gate), "v0002"), served(Scripted(), "v0003")
        tried(endpoint, stuck)
        await failing(endpoint, stuck, 40)  # more than a batch, and than it has threads
        trial = tried(endpoint, following)
        answer = await endpoint.answer(following, walk(1))
        assert len(answer.items) == 10
        assert len(await endpoint.answer_all(following, [walk(2), walk(3)])) == 2
        assert (trial.figures().live.requests, trial.figures().live.errors) == (2, 0)

    run(story)


def test_a_stuck_candidate_costs_the_incumbent_nothing_even_when_its_trial_is_over(run: Run) -> None:
    async def story(gate: threading.Event) -> None:
        incumbent = served(Scripted())
        endpoint, stuck = replica(incumbent), served(Stuck(gate), "v0002")
        tried(endpoint, stuck)
        endpoint.follower.trial = None  # requests that chose the candidate before are under way
        endpoint.follower.models = Models(incumbent, others=(stuck,))
        waiting = asyncio.gather(*(endpoint.answer(stuck, walk(n)) for n in range(40)), return_exceptions=True)
        await asyncio.sleep(0)
        assert len((await endpoint.answer(incumbent, walk(1))).items) == 10
        assert {type(one) for one in await waiting} == {CandidateFailedError}

    run(story)


def test_a_batch_that_is_stuck_does_not_keep_the_next_one_waiting(run: Run) -> None:
    async def story(gate: threading.Event) -> None:
        class Sometimes(Stuck):
            def answer(self, queries: Any) -> Any:
                return super().answer(queries) if queries[0].k == 7 else Scripted().answer(queries)

        incumbent = served(Sometimes(gate))
        endpoint = replica(incumbent, timeout_s=0.2)
        with pytest.raises(TimeoutError):
            await endpoint.answer(incumbent, Query(["id-1"], k=7))
        assert len((await endpoint.answer(incumbent, walk(1))).items) == 10

    run(story)


def test_what_a_candidate_cannot_take_is_counted() -> None:
    endpoint, candidate = replica(served(Scripted())), served(Scripted(), "v0002")
    endpoint.refused(candidate, "nobody tries it")
    trial = tried(endpoint, candidate)
    endpoint.refused(candidate, "unknown item attribute 'brand'")
    assert (trial.figures().live.errors, trial.figures().live.last_error) == (1, "unknown item attribute 'brand'")
