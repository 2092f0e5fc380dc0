"""Ray Tune beside a thread that shows the news."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ray import tune

from pipelines.train_bridge import POLL_SECONDS


def fit(tuner: tune.Tuner, tick: Callable[[], None]) -> None:
    """`tuner.fit` in a thread of its own; the calling thread calls `tick` twice a second, and signals interrupt it."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            tuner.fit()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            problems.append(error)

    thread = threading.Thread(target=run, name="tune", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        tick()
    if problems:
        raise problems[0]
