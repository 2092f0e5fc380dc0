"""Where the models work: in threads, or at once where that is short."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from components.recommender import Query, Recommendation
from serve.models import Served
from serve.record import current

THREADS: Final = 2  # a call with hundreds of queries does not hold up the small ones


class Workers:
    """Lets models rank, in a few threads of its own.

    A thread cannot be stopped: what it works on when a request's time is up goes on. What still waits for a thread is
    dropped then, so abandoned work does not pile up: at most `threads` rankings run for nobody.

    Args:
        threads: how many.
        trusting: make rankings that are known to be short in the caller's thread, see `serve.pace`. Not for models on
            trial, which may hang at any moment.
    """

    def __init__(self, threads: int = THREADS, *, trusting: bool = True) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._trusting = trusting

    async def rank(self, model: Served, queries: Sequence[Query]) -> list[Recommendation]:
        """The answers of `model`; their time is noted in the current request's record.

        What a reason or a new filter costs has nothing to do with what plain rankings were seen to take: an explained
        one is up to 51. So these get a thread.
        """
        plain = not any(query.explain or query.filter is not None for query in queries)
        at_once = self._trusting and plain and model.pace.is_short(len(queries))
        if at_once:
            answers, wall_s, cpu_s = _timed(model, queries)
        else:
            answers, wall_s, cpu_s = await asyncio.wrap_future(self._pool.submit(_timed, model, queries))
        if plain:
            model.pace.note(len(queries), wall_s, cpu_s, crowded=not at_once)
        current().model_s += wall_s
        return answers


def _timed(model: Served, queries: Sequence[Query]) -> tuple[list[Recommendation], float, float]:
    """Answers, and the seconds and processor seconds that they took."""
    started, used = time.perf_counter(), time.thread_time()
    answers = model.recommender.answer(queries)
    return answers, time.perf_counter() - started, time.thread_time() - used
