"""What a replica does to find out whether it still answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from components.recommender import Query, Recommendation
from serve.models import Models, Served

DEADLINE_S: Final = 3.0  # for one tiny ranking; requests that wait before it are bounded by the admission
PERIOD_S: Final = 3.0  # Ray Serve asks this often, and replaces a replica after three failures in a row
TIMEOUT_S: Final = 4.0  # where the whole process stands still and not even the failure arrives

Ask = Callable[[Served, Sequence[Query]], Awaitable[Sequence[Recommendation]]]


async def rank_once(models: Models, ask: Ask, deadline_s: float = DEADLINE_S) -> None:
    """Let the incumbent rank once, in the threads that answer requests. A candidate is judged by its release: what is
    wrong with it must not cost the replica.

    Raises:
        ApiError: 503, nothing is loaded yet.
        RuntimeError: the model does not answer in time, or ranks nothing.
    """
    served = models.pick_incumbent()
    probe = Query(served.recommender.item_ids[:1], k=1, exclude_seen=False)
    try:
        answers = await asyncio.wait_for(asyncio.ensure_future(ask(served, [probe])), deadline_s)
    except TimeoutError as error:
        raise RuntimeError(f"{served.name}: no ranking within {deadline_s:g} s, the model is stuck") from error
    if not answers[0].items:
        raise RuntimeError(f"{served.name}: ranks nothing for a known item")
