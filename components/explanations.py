"""Why an item was recommended: which items of the history moved its score, by leaving each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from components.inference import Scorer

MAX_ITEMS: Final = 50  # of a history that are tried, the latest ones
SHOWN: Final = 3  # influences per recommended item
ROUNDING: Final = 1e-5  # of a score's size: smaller changes are those of another order of additions


@dataclass(frozen=True)
class Influence:
    """An item of the history and what it did.

    Attributes:
        number: of the item.
        change: score with the whole history minus score without the item; below zero where the item spoke against it.
    """

    number: int
    change: float


def influences(
    scorer: Scorer, history: NDArray[np.int32], items: Sequence[int], user: int = 0
) -> list[tuple[Influence, ...]]:
    """For each of `items` the at most `SHOWN` items of the history that changed its score most, strongest first.

    That is exact for one item left out at a time, at all its places in the history; it says nothing of pairs that
    only work together. The last `MAX_ITEMS` distinct items within the model's window are tried, in one pass of as many
    histories and one more. A history of one item has no other to be compared with, so there is nothing to say of it; a
    model that does not read histories gives no influences.

    Args:
        scorer: the model.
        history: item numbers, oldest first, not empty.
        items: the recommended items.
        user: number of the user, 0 where unknown.
    """
    window = history[-scorer.model.max_length :]
    tried = list(dict.fromkeys(window[::-1].tolist()))[:MAX_ITEMS]  # the latest first
    if len(set(history.tolist())) < 2 or not items:
        return [() for _ in items]
    histories = [history, *(history[history != number] for number in tried)]
    scores = scorer.scores_of(histories, items, [user] * len(histories))  # (M + 1, K)
    changes = scores[0] - scores[1:]  # (M, K)
    threshold = ROUNDING * np.maximum(1.0, np.abs(scores[0]))
    return [_strongest(tried, changes[:, column], float(threshold[column])) for column in range(len(items))]


def _strongest(tried: Sequence[int], changes: NDArray[np.float32], threshold: float) -> tuple[Influence, ...]:
    order = np.argsort(-np.abs(changes), kind="stable")[:SHOWN]
    return tuple(Influence(tried[row], float(changes[row])) for row in order if abs(changes[row]) > threshold)
