"""``distilrec recommend``: the ranking that the endpoint would give, without an endpoint."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.catalog_filters import Filter
from components.errors import UserError
from components.inference import one_thread
from components.recommender import Query, Recommendation, Recommender
from pipelines.served import find_artifact


def recommend(
    run: Path,
    history: list[str],
    k: int = 10,
    exclude_seen: bool = True,
    as_json: bool = False,
    wanted: Filter | None = None,
    *,
    explain: bool = False,
) -> None:
    """Print the best items after a history, as a table or as one JSON document with the endpoint's keys.

    Args:
        run: a run or an artifact, see `pipelines.served.find_artifact`.
        history: item ids, oldest first.
        k: how many items.
        exclude_seen: leave out the items of the history.
        as_json: print JSON.
        wanted: which items may be recommended; None for all.
        explain: say which items of the history moved each score.

    Raises:
        UserError: no artifact there, a `k` that is not positive, or an attribute that the catalog does not have.
        ArtifactError: the artifact is corrupt.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    recommender = Recommender(find_artifact(run))
    with one_thread():
        answer = recommender.answer([Query(history, k, exclude_seen, filter=wanted, explain=explain)])[0]
    if as_json:
        body = {**dataclasses.asdict(answer), "model": recommender.name}
        if not explain:
            for item in body["items"]:
                del item["because"]
        sys.stdout.write(json.dumps(body, ensure_ascii=False, indent=2) + "\n")
        return
    _print(answer, recommender.name)


def _print(answer: Recommendation, model: str) -> None:
    notes = Console(stderr=True, highlight=False)
    if answer.unknown_items:
        notes.print(f"not in the catalog, ignored: {', '.join(answer.unknown_items)}", markup=False)
    if answer.fallback:
        notes.print("no known item in the history: these are the most popular items")
    explained = any(item.because is not None for item in answer.items)
    table = Table("#", "item", "title", "score", *(["because of"] if explained else []), title=model)
    for position, item in enumerate(answer.items, start=1):
        reasons = [f"{_plain(one.title or one.item_id)} ({one.change:+.2f})" for one in item.because or ()]
        shown = [str(position), _plain(item.item_id), _plain(item.title or ""), f"{item.score:.4f}"]
        table.add_row(*shown, *(["\n".join(reasons)] if explained else []))
    Console().print(table)


def filter_of(
    allow: Sequence[str], deny: Sequence[str], allow_items: Sequence[str] | None, deny_items: Sequence[str]
) -> Filter | None:
    """The filter of the options ``ATTRIBUTE=VALUE``; None where there are none.

    Raises:
        UserError: an option without ``=``.
    """
    if not (allow or deny or allow_items or deny_items):
        return None
    return Filter.of(_values("--allow", allow), _values("--deny", deny), allow_items or None, deny_items)


def _values(option: str, given: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UserError(f"{option} {text}: expected ATTRIBUTE=VALUE, such as brand=3M")
        found.setdefault(name, []).append(value)
    return found


def _plain(text: str) -> str:
    """Text of the user's data without rich's markup and without control characters."""
    return "".join(one if one.isprintable() else "�" for one in text).replace("[", "\\[")
