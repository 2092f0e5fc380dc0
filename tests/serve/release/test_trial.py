from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest

from components.catalog_filters import Filter, ItemAttributes
from components.recommender import Query, Recommendation
from serve.release.gate import failure
from serve.release.policy import Policy
from serve.release.recorder import Recorder
from serve.release.trial import CandidateFailedError, Trial, guarded, nothing_in_any
from tests.serve.release.worlds import Empty, Scripted, served, walk

POLICY = Policy(min_comparisons=40, deadline_seconds=0.2)


def compared(candidate: Scripted, count: int = 60, policy: Policy = POLICY) -> Trial:
    trial = Trial(served(Scripted()), served(candidate, "v0002"), policy, Recorder())
    for number in range(count):
        trial.compare(walk(number), candidate_first=bool(number % 2))
    return trial


def test_equal_models_are_equal() -> None:
    figures = compared(Scripted()).figures()
    assert (figures.comparisons, figures.overlap, figures.cases) == (60, 60.0, 60)
    assert figures.quality == (60.0, 60.0)  # the next item is always ranked first
    assert figures.known == (240, 240)
    assert failure(POLICY, figures) == ""


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (Scripted(shift=30), "share 0.0% of the incumbent's items"),
        (Scripted(shift=2), "it ranks badly"),
        (Scripted(fails="no memory"), "recorded requests failed (allowed: 1.0%), the last one with: RuntimeError: no"),
        (Empty(), "no item has a finite score"),
        (Scripted(unknown=[f"id-{number}" for number in range(1, 31)]), "was it trained on another catalog?"),
    ],
)
def test_a_bad_candidate_shows(candidate: Scripted, said: str) -> None:
    assert said in failure(POLICY, compared(candidate).figures())


def test_a_slow_candidate_shows() -> None:
    policy = POLICY.model_copy(update={"deadline_seconds": 10.0})
    assert "it is slow" in failure(policy, compared(Scripted(seconds=0.01), 25, policy).figures())


def test_rankings_after_the_deadline_are_errors() -> None:
    policy = POLICY.model_copy(update={"deadline_seconds": 0.001})
    figures = compared(Scripted(seconds=0.01), 5, policy).figures()
    assert figures.candidate.errors >= 5
    assert "deadline" in figures.candidate.last_error


def assert_opened(gate: threading.Event) -> None:
    assert gate.wait(30)


def test_a_candidate_that_hangs_is_called_stuck() -> None:
    policy, gate = POLICY.model_copy(update={"deadline_seconds": 0.001}), threading.Event()
    slow = Scripted(seconds=1.0)
    slow.wait = lambda _: assert_opened(gate)
    recorder = Recorder()
    recorder.add(walk(1))
    trial = Trial(served(Scripted()), served(slow, "v0002"), policy, recorder).start()
    end = time.monotonic() + 20
    while not trial.stuck() and time.monotonic() < end:
        threading.Event().wait(0.01)
    assert "does not come back" in trial.stuck()
    gate.set()
    trial.stop()


def test_every_recorded_request_is_compared_once() -> None:
    recorder = Recorder()
    for number in range(7):
        recorder.add(walk(number))
    trial = Trial(served(Scripted()), served(Scripted(), "v0002"), POLICY, recorder).start()
    end = time.monotonic() + 20
    while trial.figures().comparisons < 7 and time.monotonic() < end:
        threading.Event().wait(0.01)
    trial.stop()
    assert trial.figures().comparisons == 7


def test_the_recorder_keeps_the_latest() -> None:
    recorder = Recorder(kept=3)
    recorder.add(Query([]))
    assert recorder.after(0) is None
    for number in range(5):
        recorder.add(walk(number))
    found, seen = [], 0
    while (one := recorder.after(seen)) is not None:
        seen, query = one
        found.append(query)
    assert found == [walk(2), walk(3), walk(4)]


def ask(trial: Trial | None, candidate: bool, answer: object, over: bool = False) -> Sequence[Recommendation]:
    """Ask the candidate or the incumbent of a trial, which may be over by now."""

    async def asked() -> Sequence[Recommendation]:
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        return [] if answer == "empty" else [Recommendation([], [])]

    incumbent = trial.incumbent if trial else served(Scripted())
    model = trial.candidate if trial and candidate else incumbent
    return asyncio.run(guarded(None if over else trial, model, incumbent, asked, lambda found: not found))


def test_people_never_see_a_candidate_fail() -> None:
    trial = Trial(served(Scripted()), served(Scripted(), "v0002"), POLICY, Recorder())
    assert len(ask(trial, True, "fine")) == 1
    for answer in (RuntimeError("broken"), 5.0, "empty"):
        with pytest.raises(CandidateFailedError):
            ask(trial, True, answer)
    figures = trial.figures()
    assert (figures.live.requests, figures.live.errors) == (4, 3)
    assert figures.live_incumbent.requests == 0


def test_a_candidate_whose_trial_is_over_is_still_not_seen_to_fail() -> None:
    """A request chooses its model, reads its user's history, and asks: the trial may end in between."""
    trial = Trial(served(Scripted()), served(Scripted(), "v0002"), POLICY, Recorder())
    for answer in (RuntimeError("broken"), 5.0, "empty"):
        with pytest.raises(CandidateFailedError):
            ask(trial, True, answer, over=True)
    assert trial.figures().live.requests == 0


def test_the_incumbents_own_failures_are_not_hidden() -> None:
    trial = Trial(served(Scripted()), served(Scripted(), "v0002"), POLICY, Recorder())
    with pytest.raises(RuntimeError, match="broken"):
        ask(trial, False, RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        ask(None, False, RuntimeError("broken"))
    figures = trial.figures()
    assert (figures.live_incumbent.requests, figures.live_incumbent.errors) == (1, 1)
    assert figures.live.requests == 0


def test_other_versions_are_not_counted_for_the_incumbent() -> None:
    trial = Trial(served(Scripted()), served(Scripted(), "v0002"), POLICY, Recorder())
    trial.live(served(Scripted(), "v0000"), 0.1, "broken")
    assert trial.figures().live_incumbent.requests == 0


def test_reasons_quote_no_request() -> None:
    """They go to the terminal, to files and into the history of releases."""
    trial = Trial(served(Scripted()), served(Scripted(), "v0002"), POLICY, Recorder())
    with pytest.raises(CandidateFailedError):
        ask(trial, True, KeyError("a-private-history"))
    with pytest.raises(CandidateFailedError):
        ask(trial, True, RuntimeError("no memory"))
    trial.candidate.recommender.answer = quoting  # type: ignore[method-assign]
    trial.compare(walk(1))
    figures = trial.figures()
    assert "a-private-history" not in figures.model_dump_json()
    assert (figures.live.last_error, figures.candidate.errors) == ("RuntimeError: no memory", 2)
    assert figures.candidate.last_error.startswith("ValueError")


def quoting(queries: Sequence[Query]) -> list[Recommendation]:
    raise ValueError("a-private-history")


@pytest.mark.parametrize(("data", "users"), [("shop", {7}), ("another shop", {0})])
def test_user_numbers_do_not_reach_models_of_other_data(data: str, users: set[int]) -> None:
    asked: set[int] = set()

    class Asked(Scripted):
        def answer(self, queries: Sequence[Query]) -> list[Recommendation]:
            asked.update(query.user for query in queries)
            return super().answer(queries)

    candidate = Asked()
    candidate.manifest = {"data_fingerprint": data}
    trial = Trial(served(Scripted()), served(candidate, "v0002"), POLICY, Recorder())
    trial.compare(Query(walk(1).history, k=5, user=7))
    assert asked == users


def test_an_answer_that_a_filter_emptied_is_no_fault() -> None:
    empty = Recommendation([], [])
    plain, filtered = Query(["a"]), Query(["a"], filter=Filter.of(allow_items=[]))
    assert not nothing_in_any([empty], [filtered])
    assert nothing_in_any([empty, empty], [filtered, plain])


def test_models_are_compared_without_filters_and_reasons() -> None:
    recorder = Recorder()
    recorder.add(Query(["a"], 3, filter=Filter.of({"color": ["red"]}), explain=True))
    kept = recorder.after(0)
    assert kept == (1, Query(["a"], 3, filter=Filter.of({"color": []})))  # the attribute alone, not what was wanted


@pytest.mark.parametrize(("incumbents", "errors"), [(["color", "size"], 4), (["color"], 0)])
def test_a_candidate_that_lacks_an_attribute_of_requests_shows_in_the_shadow(
    incumbents: list[str], errors: int
) -> None:
    trial = Trial(served(Scripted()), served(Scripted(), "v0002"), POLICY, Recorder())
    attribute_names = {trial.incumbent: incumbents, trial.candidate: ["color"]}
    for model, names in attribute_names.items():
        model.recommender.attributes = ItemAttributes(pl.DataFrame({name: [["x"]] for name in names}))
    for number in range(4):
        trial.compare(replace(walk(number), filter=Filter.of({"color": ["red"]}, deny={"size": ["XL"]})))
    figures = trial.figures()
    assert (figures.comparisons, figures.candidate.errors) == (4, errors)
    said = failure(POLICY, figures)
    assert ("no item attribute 'size', which requests filter by" in said) == bool(errors)
