"""Ids of users and items, numbered as the model knows them; new ones get the next numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from components.schema import ITEM_ID, ITEMS_FILE, USER_ID, USERS_FILE

TITLE = "title"


class Identities:
    """Which number each id has.

    Args:
        ids: in the order of their numbers.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self._numbers = {one: number for number, one in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, one: str) -> int | None:
        """The number of an id, None where it is new."""
        return self._numbers.get(one)

    def number(self, one: str) -> int:
        """The number of an id; a new one gets the next."""
        found = self._numbers.setdefault(one, len(self.ids))
        if found == len(self.ids):
            self.ids.append(one)
        return found


def read_users(folder: Path) -> list[str]:
    """Ids of the users that a finished stream knows."""
    return pl.read_parquet(folder / USERS_FILE, columns=[USER_ID])[USER_ID].to_list()


def read_items(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Ids of the items that a finished stream knows, and titles of those that have one."""
    frame = pl.read_parquet(folder / ITEMS_FILE)
    ids = frame[ITEM_ID].to_list()
    titles = frame[TITLE].cast(pl.String).to_list() if TITLE in frame.columns else []
    return ids, {one: title for one, title in zip(ids, titles, strict=False) if title}
