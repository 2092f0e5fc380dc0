"""Groups of users for whom a mean may hide a failure: cold targets, popular targets, short and long histories."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from components.data.flat_sequences import EvaluationCases
from components.evaluation.metrics import mean_metrics

BoolArray = NDArray[np.bool_]
SLICES: Final = {
    "cold_items": "the target was hardly seen in training",
    "popular_items": "the target is among the most frequent items",
    "short_histories": "little is known about the user",
    "long_histories": "much is known about the user",
}


class SliceConfig(BaseModel):
    """Where the groups begin and end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cold_count: int = Field(5, ge=0, description="a target with at most so many training interactions is cold")
    popular_share: float = Field(0.2, gt=0, lt=1, description="popular items together hold this share of training")
    short_history: int = Field(5, ge=1, description="longest history that is short")
    long_history: int = Field(20, ge=2, description="shortest history that is long")


def popular_items(counts: NDArray[np.int64], share: float) -> BoolArray:
    """(N + 1,) the fewest most frequent items that together hold `share` of all training interactions.

    >>> popular_items(np.array([0, 5, 3, 1, 1]), 0.6).tolist()
    [False, True, True, False, False]
    """
    order = np.argsort(-counts, kind="stable")
    held_before = np.cumsum(counts[order]) - counts[order]
    popular = np.zeros(len(counts), dtype=bool)
    popular[order] = held_before < share * counts.sum()
    return popular & (counts > 0)


def case_slices(cases: EvaluationCases, counts: NDArray[np.int64], config: SliceConfig) -> dict[str, BoolArray]:
    """(C,) membership of every case in every slice of `SLICES`.

    Args:
        cases: the evaluated users.
        counts: (N + 1,) training interactions per item.
        config: the borders.
    """
    return {
        "cold_items": counts[cases.targets] <= config.cold_count,
        "popular_items": popular_items(counts, config.popular_share)[cases.targets],
        "short_histories": cases.lengths <= config.short_history,
        "long_histories": cases.lengths >= config.long_history,
    }


def slice_metrics(
    positions: NDArray[np.int64], masks: dict[str, BoolArray], cutoffs: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """Number of users and means of all metrics in every slice; an empty slice has ``users`` 0 and no metric.

    >>> slice_metrics(np.array([1, 9]), {"cold_items": np.array([True, False])}, (5,))["cold_items"]
    {'users': 1, 'recall@5': 1.0, 'ndcg@5': 1.0, 'mrr@5': 1.0}
    """
    return {name: {"users": int(mask.sum()), **mean_metrics(positions[mask], cutoffs)} for name, mask in masks.items()}
