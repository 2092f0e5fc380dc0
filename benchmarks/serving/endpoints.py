"""Endpoints to measure: an artifact behind Ray Serve on a free port of loopback, alone or beside variants."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from components.recommender import Query, Recommendation, Recommender, ScoredItem
from pipelines.serving.endpoint import endpoint
from serve.settings import Settings

LEFT_OUT: Final = "left-out"
MODEL: Final = "distilrec"  # name of the application that `distilrec serve` starts
ROUTE: Final = "/v1/recommend"


@contextmanager
def started(artifact: Path, settings: Settings | None = None, replicas: int = 1) -> Iterator[str]:
    """Hold an endpoint as `distilrec serve` starts it; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with endpoint(artifact, settings or Settings(), "127.0.0.1", port, replicas):
        logging.getLogger("ray").setLevel(logging.ERROR)
        yield f"http://127.0.0.1:{port}"


def add_left_out(artifact: Path, settings: Settings | None = None) -> str:
    """Start, beside a running endpoint, the same application without its model; returns the prefix of its routes.

    Requests are parsed, gathered into batches and handed to a thread as ever; the recommender answers each with the
    same ready ranking, which is rendered as ever.
    """
    from serve.endpoint import Endpoint

    served: Any = Endpoint  # the decorator is not typed

    class LeftOut(served.func_or_class):  # type: ignore[misc]
        async def __init__(self, *arguments: Any) -> None:  # type: ignore[misc]  # as Ray Serve has it
            await super().__init__(*arguments)  # before: a model is checked by its golden requests when it is loaded
            leave_out_the_model()

    return _add(served.options(func_or_class=LeftOut, num_replicas=1), artifact, LEFT_OUT, settings)


def add_application(artifact: Path, name: str) -> str:
    """Start, beside a running endpoint, another of the same kind; returns the prefix of its routes."""
    from serve.endpoint import Endpoint

    served: Any = Endpoint
    return _add(served.options(num_replicas=1), artifact, name, None)


def _add(deployment: Any, artifact: Path, name: str, settings: Settings | None) -> str:
    from ray import serve as ray_serve

    application = deployment.bind(str(artifact), (settings or Settings()).model_dump())
    ray_serve.run(application, name=name, route_prefix=f"/{name}")
    return f"/{name}"


def leave_out_the_model() -> None:
    """From now on recommenders of this process answer every query with its k most frequent items, made once."""
    ready: dict[tuple[int, int], Recommendation] = {}

    def answer(self: Recommender, queries: list[Query]) -> list[Recommendation]:
        answers = []
        for query in queries:
            place = (id(self), query.k)
            if place not in ready:
                pairs = zip(self.item_ids[: query.k], self.titles, strict=False)
                ready[place] = Recommendation([ScoredItem(item, 1.5, title) for item, title in pairs], [])
            answers.append(ready[place])
        return answers

    Recommender.answer = answer  # type: ignore[assignment, method-assign]


def bodies(item_ids: list[str], count: int = 500, longest: int = 30, k: int = 10, seed: int = 0) -> list[bytes]:
    """Requests with histories of 1 to `longest` items, drawn with probability 1 / rank."""
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(1, len(item_ids) + 1)
    made = []
    for length in generator.integers(1, longest + 1, count):
        chosen = generator.choice(len(item_ids), size=length, p=shares / shares.sum())
        made.append(json.dumps({"history": [item_ids[item] for item in chosen], "k": k}).encode())
    return made
