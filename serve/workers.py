"""Threads for the models' work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from serve.record import current

T = TypeVar("T")
THREADS: Final = 2  # a call with hundreds of queries does not hold up the small ones


class Workers:
    """Runs functions in a few threads of its own.

    A thread cannot be stopped: what it works on when a request's time is up goes on. What still waits for a thread is
    dropped then, so abandoned work does not pile up: at most `threads` functions run for nobody.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model")

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run ``function(*arguments)`` in a thread, and note its time in the current request's record."""
        answer, seconds = await asyncio.wrap_future(self._pool.submit(_timed, function, arguments))
        current().model_s += seconds
        return answer


def _timed(function: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T, float]:
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started
