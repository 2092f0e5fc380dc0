"""``distilrec recommend``: the ranking that the endpoint would give, without an endpoint."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.errors import UserError
from components.inference import one_thread
from components.recommender import Recommendation, Recommender
from pipelines.served import find_artifact


def recommend(run: Path, history: list[str], k: int = 10, exclude_seen: bool = True, as_json: bool = False) -> None:
    """Print the best items after a history, as a table or as one JSON document with the endpoint's keys.

    Args:
        run: a run or an artifact, see `pipelines.served.find_artifact`.
        history: item ids, oldest first.
        k: how many items.
        exclude_seen: leave out the items of the history.
        as_json: print JSON.

    Raises:
        UserError: no artifact there, or a `k` that is not positive.
        ArtifactError: the artifact is corrupt.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    recommender = Recommender(find_artifact(run))
    with one_thread():
        answer = recommender.recommend([history], k, exclude_seen)[0]
    if as_json:
        body = {**dataclasses.asdict(answer), "model": recommender.name}
        sys.stdout.write(json.dumps(body, ensure_ascii=False, indent=2) + "\n")
        return
    _print(answer, recommender.name)


def _print(answer: Recommendation, model: str) -> None:
    notes = Console(stderr=True, highlight=False)
    if answer.unknown_items:
        notes.print(f"not in the catalog, ignored: {', '.join(answer.unknown_items)}", markup=False)
    if answer.fallback:
        notes.print("no known item in the history: these are the most popular items")
    table = Table("#", "item", "title", "score", title=model)
    for position, item in enumerate(answer.items, start=1):
        table.add_row(str(position), _plain(item.item_id), _plain(item.title or ""), f"{item.score:.4f}")
    Console().print(table)


def _plain(text: str) -> str:
    """Text of the user's data without rich's markup and without control characters."""
    return "".join(one if one.isprintable() else "�" for one in text).replace("[", "\\[")
