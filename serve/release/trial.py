"""One step of a release in one replica: both models rank recorded requests in turns, and live answers are counted."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from components.recommender import Query, Recommendation
from serve.histories.base import fingerprint_of
from serve.logs import spoken
from serve.models import Served
from serve.release.figures import Figures
from serve.release.policy import Policy
from serve.release.recorder import Recorder

logger = logging.getLogger("distilrec.release")
DUTY: Final = 0.25  # share of a processor that comparisons may take from the requests of people
REST_S: Final = 1.0  # at most, so that a slow candidate is known soon
IDLE_S: Final = 0.05  # between looks at a recorder with nothing new
STUCK: Final = 5.0  # deadlines after which a ranking that has not come back is called stuck
LIST: Final = 20  # items that are ranked for a held-out one
Answered = TypeVar("Answered")


class CandidateFailedError(Exception):
    """The candidate gave no answer in time; the incumbent is to be asked."""


class Trial:
    """Measures a candidate beside the incumbent until it is stopped.

    Args:
        incumbent: what served before.
        candidate: what is on trial.
        policy: its deadline and its ratio of quality are used.
        recorder: the requests to compare on; each is used once.
    """

    def __init__(self, incumbent: Served, candidate: Served, policy: Policy, recorder: Recorder) -> None:
        self.incumbent, self.candidate, self.policy = incumbent, candidate, policy
        self._recorder, self._figures = recorder, Figures()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._busy_since: float | None = None
        self._same_users = same_data(incumbent, candidate)
        self._thread: threading.Thread | None = None

    def start(self) -> Trial:
        """Compare in a thread of its own, on a quarter of a processor."""
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Compare no more. A candidate that hangs keeps its thread, which ends with the process."""
        self._stop.set()

    def figures(self) -> Figures:
        """What was measured so far."""
        with self._lock:
            return self._figures.model_copy(deep=True)

    def stuck(self) -> str:
        """What to say where the candidate does not come back from a ranking; else empty."""
        since = self._busy_since
        if since is None or time.monotonic() - since < STUCK * self.policy.deadline_seconds:
            return ""
        return f"it does not come back from a ranking since {time.monotonic() - since:.1f} s"

    def live(self, model: Served, seconds: float, error: str = "") -> None:
        """Count an answer of one of the two to people."""
        with self._lock:
            if model is self.candidate:
                self._figures.live.add(seconds, error)
            elif model is self.incumbent:
                self._figures.live_incumbent.add(seconds, error)

    def _run(self) -> None:
        seen, turn = 0, 0
        while not self._stop.is_set():
            found = self._recorder.after(seen)
            if found is None:
                self._stop.wait(IDLE_S)
                continue
            seen, query = found
            started = time.perf_counter()
            self.compare(query, candidate_first=bool(turn % 2))
            turn += 1
            self._stop.wait(min(REST_S, (time.perf_counter() - started) * (1 / DUTY - 1)))

    def compare(self, query: Query, *, candidate_first: bool = False) -> None:
        """Let both rank one recorded request without its filter, and its history without its last item."""
        if lacking := self._lacking(query):
            with self._lock:
                self._figures.candidate.fail(f"it has no item attribute {lacking[0]!r}, which requests filter by")
        query = replace(query, filter=None)
        order = [self.candidate, self.incumbent] if candidate_first else [self.incumbent, self.candidate]
        answers = {id(model): self._timed(model, query) for model in order}
        theirs, ours = answers[id(self.incumbent)], answers[id(self.candidate)]
        if theirs is None:
            return
        top = {item.item_id for item in theirs.items}
        shared = len(top & {item.item_id for item in ours.items}) / len(top) if ours is not None and top else 0.0
        known = len(query.history) - len(theirs.unknown_items)
        known_too = len(query.history) - len(ours.unknown_items) if ours is not None else known
        with self._lock:
            figures = self._figures
            figures.comparisons += 1
            figures.overlap += shared
            figures.known = (figures.known[0] + known, figures.known[1] + known_too)
        self._hold_out(query)

    def _lacking(self, query: Query) -> list[str]:
        """Attributes that the request filters by and that the incumbent alone has."""
        if query.filter is None:
            return []
        ours, theirs = (set(one.recommender.attributes.names) for one in (self.candidate, self.incumbent))
        return [name for name in query.filter.attributes if name in theirs - ours]

    def _hold_out(self, query: Query) -> None:
        *before, target = query.history
        if not before or target in before or not self.incumbent.recommender.knows(target):
            return
        asked = Query(before, LIST, exclude_seen=True, user=query.user)
        gains = []
        for model in (self.incumbent, self.candidate):
            answer = self._timed(model, asked, counted=False)
            gains.append(_gain(answer, target))
        excess = gains[1] - self.policy.min_quality_ratio * gains[0]
        with self._lock:
            figures = self._figures
            figures.cases += 1
            figures.quality = (figures.quality[0] + gains[0], figures.quality[1] + gains[1])
            figures.excess = (figures.excess[0] + excess, figures.excess[1] + excess**2)

    def _timed(self, model: Served, query: Query, *, counted: bool = True) -> Recommendation | None:
        """The model's answer; None where it fails, which is counted."""
        tally = self._figures.candidate if model is self.candidate else self._figures.incumbent
        if model is self.candidate and not self._same_users:
            query = replace(query, user=0)  # numbers of users belong to the data that a model was trained on
        started, error, answer = time.perf_counter(), "", None
        self._busy_since = time.monotonic() if model is self.candidate else None
        try:
            answer = model.recommender.answer([query])[0]
        except Exception as failure:
            logger.exception("%s cannot answer a recorded request", model.version)
            error = spoken(failure)
        self._busy_since = None
        seconds = time.perf_counter() - started
        if model is self.candidate:
            error = error or fault(answer, seconds, self.policy.deadline_seconds)
        if counted or error:
            with self._lock:
                tally.add(seconds, error)
        return answer


def fault(answer: Recommendation | None, seconds: float, deadline: float) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if seconds > deadline:
        return f"{seconds:.2f} s for a ranking (deadline: {deadline:g} s)"
    if answer is not None and not answer.items:
        return "no item has a finite score"
    return ""


def same_data(one: Served, other: Served) -> bool:
    """Whether two models were trained on the same users."""
    return fingerprint_of(one.recommender.manifest) == fingerprint_of(other.recommender.manifest)


async def guarded(
    trial: Trial | None,
    model: Served,
    incumbent: Served | None,
    ask: Callable[[], Awaitable[Answered]],
    empty: Callable[[Answered], bool],
) -> Answered:
    """Ask a model for people, and count it while a trial runs.

    Whoever is not the incumbent is guarded, also when its trial has just ended: requests that chose it are under way.

    Args:
        trial: the trial that runs, if any.
        model: who is asked.
        incumbent: who answers where `model` does not.
        ask: asks it.
        empty: whether an answer holds nothing.

    Raises:
        CandidateFailedError: a model that is not the incumbent failed or was late; people are to get the incumbent's
            answer.
    """
    started = time.perf_counter()

    def count(error: str = "") -> None:
        if trial is not None:
            trial.live(model, time.perf_counter() - started, error)

    try:
        if model is incumbent:
            answer = await ask()
        else:
            answer = await asyncio.wait_for(ask(), deadline_of(trial))
            if empty(answer):
                raise CandidateFailedError("no item has a finite score")
    except Exception as failure:
        error = _said(failure, deadline_of(trial))
        count(error)
        if model is incumbent:
            raise
        if not isinstance(failure, CandidateFailedError | TimeoutError):
            logger.exception("%s cannot answer", model.version)
        raise CandidateFailedError(error) from failure
    count()
    return answer


def deadline_of(trial: Trial | None) -> float:
    """How long a model that is not the incumbent may take to answer people, seconds."""
    return (Policy() if trial is None else trial.policy).deadline_seconds


def _said(failure: Exception, deadline: float) -> str:
    if isinstance(failure, TimeoutError):
        return f"no answer within {deadline:g} s"
    return str(failure) if isinstance(failure, CandidateFailedError) else spoken(failure)


def nothing_in_any(answers: Sequence[Recommendation], queries: Sequence[Query]) -> bool:
    """Whether one of the answers holds no item; where a filter was asked for that can be right."""
    return any(not answer.items and query.filter is None for answer, query in zip(answers, queries, strict=True))


def _gain(answer: Recommendation | None, target: str) -> float:
    """NDCG of a single relevant item."""
    if answer is None:
        return 0.0
    for place, item in enumerate(answer.items):
        if item.item_id == target:
            return 1 / math.log2(place + 2)
    return 0.0
