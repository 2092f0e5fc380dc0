"""The neutral form in which every contender gets the same sequences: one .npz file with flat arrays.

``items`` (I,) numbers 1..N by training frequency, ``offsets`` (U + 1,). Leave-one-out: the last item of a user tests,
the one before it validates. Only numpy is needed to read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HELD_OUT = 2  # one item validates, one tests
HELD_OUT_OF = {"test": 1, "valid": 2}  # by part: how many last items of a user stand behind its history


@dataclass(frozen=True)
class NeutralSet:
    """Sequences of all users, flat."""

    items: Any  # (I,) int64
    offsets: Any  # (U + 1,) int64

    @property
    def num_items(self) -> int:
        """Number of items N."""
        return int(self.items.max())

    @property
    def num_users(self) -> int:
        """Number of users U."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Any:
        """(U,) interactions per user."""
        return np.diff(self.offsets)

    def sequence(self, user: int, held_out: int = 0) -> Any:
        """Items of one user (from 0) without the last `held_out`."""
        return self.items[self.offsets[user] : self.offsets[user + 1] - held_out]

    def columns(self, held_out: int = 0) -> tuple[Any, Any, Any]:
        """(user from 1, item, position) of every interaction, without each user's last `held_out`."""
        users = np.repeat(np.arange(self.num_users), self.lengths)
        positions = np.arange(len(self.items)) - self.offsets[users]
        keep = positions < self.lengths[users] - held_out
        return users[keep] + 1, self.items[keep], positions[keep]

    def training_counts(self) -> Any:
        """(N + 1,) interactions per item without what is held out; entry 0 is 0."""
        counts = np.bincount(self.items, minlength=self.num_items + 1)
        for back in range(1, HELD_OUT + 1):
            counts -= np.bincount(self.items[self.offsets[1:] - back], minlength=self.num_items + 1)
        return counts

    def targets(self, part: str = "test") -> Any:
        """(U,) the item that tests every user, the last, or the one before it, which validates."""
        return self.items[self.offsets[1:] - HELD_OUT_OF[part]]

    def history(self, user: int, part: str) -> Any:
        """Items of one user (from 0) before the one that `part` asks for."""
        return self.sequence(user, HELD_OUT_OF[part])


def best_items(scores: Any, histories: Sequence[Any], k: int) -> Any:
    """(B, N + 1) scores by item number -> (B, k) best items, best first; neither PAD nor items of the row's history.

    A row ends in 0 where fewer are left.

    >>> best_items(np.array([[9.0, 1.0, 4.0, 3.0]]), [np.array([2])], 2).tolist()
    [[3, 1]]
    """
    ranked = np.array(scores, dtype=np.float32)
    ranked[:, 0] = -np.inf
    for row, history in zip(ranked, histories, strict=True):
        row[history] = -np.inf
    k = min(k, ranked.shape[1] - 1)
    chosen = np.argpartition(-ranked, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(ranked, chosen, axis=1)
    chosen = np.where(values > -np.inf, chosen, 0)
    return np.take_along_axis(chosen, np.argsort(-values, axis=1, kind="stable"), axis=1)


def write_lists(path: str, lists: Any) -> None:
    """Save (U, K) recommended items, one row per user of the set; 0 where nothing is recommended."""
    np.save(path, np.asarray(lists, dtype=np.int32))


def list_positions(lists: Any, targets: Any) -> Any:
    """(U, K) recommended items and (U,) targets -> (U,) 1-based positions of the targets, K + 1 where they are missing.

    Raises:
        ValueError: not one list per target.

    >>> list_positions(np.array([[4, 7], [4, 7]]), np.array([7, 5])).tolist()
    [2, 3]
    """
    if len(lists) != len(targets):
        raise ValueError(f"expected one list for each of {len(targets)} users, got {len(lists)} lists")
    found = lists == np.asarray(targets)[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1, lists.shape[1] + 1)


def read_neutral(path: str | Path) -> NeutralSet:
    """Read what `write_neutral` wrote."""
    with np.load(path) as arrays:
        return NeutralSet(arrays["items"].astype(np.int64), arrays["offsets"].astype(np.int64))


def write_neutral(source: Path, target: Path) -> Path:
    """Make the neutral file from a folder with interactions.parquet (user_id, item_id, position); returns `target`.

    Raises:
        FileNotFoundError: the folder has no interactions.
    """
    import polars as pl

    file = source / "interactions.parquet"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: missing; give the folder of real data sets by --data or DISTILREC_DATA")
    if target.is_file() and target.stat().st_mtime >= file.stat().st_mtime:
        return target
    users = pl.read_parquet(file).sort("user_id", "position").group_by("user_id", maintain_order=True)
    lists = users.agg("item_id").filter(pl.col("item_id").list.len() > HELD_OUT)
    training = lists.select(pl.col("item_id").list.head(pl.col("item_id").list.len() - HELD_OUT).alias("item_id"))
    counts = training.explode("item_id").group_by("item_id").len()
    every = lists.select(pl.col("item_id").explode().unique())
    order = every.join(counts, on="item_id", how="left").sort(
        pl.col("len").fill_null(0), "item_id", descending=[True, False]
    )
    numbers = order.with_row_index("number", offset=1).select("item_id", "number")
    flat = lists.select("item_id").explode("item_id").join(numbers, on="item_id", how="left", maintain_order="left")
    offsets = np.concatenate([[0], np.cumsum(lists["item_id"].list.len().to_numpy())])
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(target, items=flat["number"].to_numpy().astype(np.int32), offsets=offsets.astype(np.int64))
    return target
