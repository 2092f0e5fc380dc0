"""Preparation as one would explain it: slow, plain Python, no code in common with the package."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

Row = tuple[str, str, int]  # user, item, seconds


@dataclass(frozen=True)
class Plain:
    """What a prepared set must hold, under the users' and items' own ids."""

    sequences: dict[str, list[tuple[str, int]]]
    ends: dict[str, tuple[int, int]]
    items: list[tuple[str, int]]  # (id, training count) in the order of item numbers


def plain_prepare(rows: list[Row], config: Any, cuts: tuple[int, int] | None = None) -> Plain:
    """`rows` in the order of the input; `cuts` in seconds for a global split, else leave-one-out."""
    kept = _without_duplicates(rows, config.duplicates)
    kept = _core(kept, config.min_interactions_per_user, config.min_interactions_per_item)
    sequences: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for user, item, time in sorted(kept, key=lambda row: row[2]):  # stable: ties keep the input's order
        sequences[user].append((item, time))
    ends = {user: _ends(sequence, cuts) for user, sequence in sequences.items()}
    counts = Counter(item for user, sequence in sequences.items() for item, _ in sequence[: ends[user][0]])
    items = {item for sequence in sequences.values() for item, _ in sequence}
    ordered = sorted(items, key=lambda item: (-counts[item], item.encode()))
    return Plain(dict(sequences), ends, [(item, counts[item]) for item in ordered])


def _without_duplicates(rows: list[Row], rule: str) -> list[Row]:
    if rule == "keep":
        return rows
    if rule == "exact":
        return list(dict.fromkeys(rows))
    in_time = sorted(enumerate(rows), key=lambda pair: (pair[1][2], pair[0]))
    chosen: dict[tuple[str, str], int] = {}
    for place, (user, item, _) in in_time:
        if rule == "last" or (user, item) not in chosen:
            chosen[user, item] = place
    return [rows[place] for place in sorted(chosen.values())]


def _core(rows: list[Row], min_user: int, min_item: int) -> list[Row]:
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        kept = [row for row in rows if users[row[0]] >= min_user and items[row[1]] >= min_item]
        if len(kept) == len(rows):
            return kept
        rows = kept


def _ends(sequence: list[tuple[str, int]], cuts: tuple[int, int] | None) -> tuple[int, int]:
    n = len(sequence)
    if cuts is not None:
        return sum(time < cuts[0] for _, time in sequence), sum(time < cuts[1] for _, time in sequence)
    return (n - 2, n - 1) if n >= 3 else (n, n)
