"""Items that training never saw: does the student rank them as well as the text teacher that lent it their vectors?

    python -m benchmarks.new_items configs/scientific.yaml --seeds 0 1 2 --json FILE

For every seed a tenth of the items is held out: all their interactions leave the log before it is prepared, their texts
stay aside. An ordinary run trains teachers and student, ``distilrec add-items`` brings the held-out items in, and every
interaction with one of them is a test case: the history is what the user took before it and training knows. Ranked are
all items, and the held-out ones alone; equal scores count half. Beside the student stand

- popularity of the training part: new items have none, so that they tie behind all others, in random order;
- random rows: vectors of the norm of the projected ones in any direction, with the same bias;
- every teacher that can read a new item: its own vectors for old and new items, its own states.

A user's value is the mean over its cases of all seeds; the paired t-test is over users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from components.data.batching import Batch
from components.data.prepared import PreparedSet
from components.schema import COUNT, IMAGE, ITEM, ITEM_ID, ITEMS_FILE, POSITION, USER_ID

CUTOFF: Final = 20
STUDENT: Final = "student"
ROWS: Final = 256  # cases that are ranked together

FloatArray = NDArray[np.float64]
Scores = Callable[[Batch], Tensor]  # a batch -> (B, N + M) scores


@dataclass(frozen=True)
class Case:
    """One interaction with a held-out item."""

    user_id: str
    history: tuple[str, ...]
    target: str


class Quiet:
    """A progress that nobody reads."""

    def start(self, total: int | None, unit: str) -> None: ...

    def advance(self, n: int = 1, **shown: float | str) -> None: ...

    def note(self, text: str) -> None: ...


def held_out(item_ids: Sequence[str], share: float, seed: int) -> set[str]:
    """A random `share` of the items."""
    size = max(1, round(share * len(item_ids)))
    return set(np.random.default_rng(seed).choice(np.sort(np.array(item_ids)), size, replace=False).tolist())


def make_cases(sequences: Sequence[tuple[str, Sequence[str]]], new: set[str]) -> list[Case]:
    """Every interaction with an item of `new` after at least one with another; histories leave out the new items."""
    cases = []
    for user_id, items in sequences:
        for place, target in enumerate(items):
            history = tuple(item for item in items[:place] if item not in new)
            if target in new and history:
                cases.append(Case(user_id, history, target))
    return cases


def read_sequences(prepared: PreparedSet) -> list[tuple[str, list[str]]]:
    """(user id, item ids in time order) of every user."""
    sequences, ids = prepared.sequences, prepared.item_ids
    flat = [ids[number - 1] for number in sequences.items]
    borders = sequences.offsets
    return [
        (user_id, flat[begin:end])
        for user_id, begin, end in zip(prepared.user_ids, borders[:-1], borders[1:], strict=True)
    ]


def write_split(prepared: PreparedSet, new: set[str], folder: Path) -> None:
    """The log without the items `new`, the table of the other items, and the table of the new ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (user_id, item_id, place)
        for user_id, items in read_sequences(prepared)
        for place, item_id in enumerate(items)
        if item_id not in new
    ]
    pl.DataFrame(rows, schema=[USER_ID, ITEM_ID, POSITION], orient="row").write_parquet(folder / "log.parquet")
    items = prepared.items.drop(ITEM, COUNT, strict=False)
    chosen = pl.col(ITEM_ID).is_in(list(new))
    items.filter(~chosen).write_parquet(folder / ITEMS_FILE)
    items.filter(chosen).write_parquet(folder / "new.parquet")


def split_config(config: dict[str, Any], prepared: PreparedSet, name: str, folder: Path) -> dict[str, Any]:
    """The configuration of the run on the log without the new items."""
    source: dict[str, Any] = {"interactions": "log.parquet", "items": ITEMS_FILE}
    source["text_columns"] = prepared.manifest["items"]["text_columns"]
    if IMAGE in prepared.items.columns:
        source["item_columns"] = {IMAGE: IMAGE}
    return {**config, "name": name, "data": str(folder.absolute()), "input": source}
