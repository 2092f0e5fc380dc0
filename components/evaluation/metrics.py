"""Ranking metrics as pure functions of 1-based positions of the targets.

With one target per user, Recall@K is the hit rate, NDCG@K is ``1 / log2(1 + position)`` and MRR@K is ``1 / position``,
each 0 beyond K. Every function returns one value per user, so that means, slices and paired tests share numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from components.errors import UnknownNameError

FloatArray = NDArray[np.float64]
Ties = Literal["against", "average", "for"]  # does an item that scores like the target stand before it?

CUTOFFS: Final = (5, 10, 20)


def recall(positions: NDArray[Any], cutoff: int) -> FloatArray:
    """Recall@K per user: 1 where the target is among the first `cutoff` items.

    >>> recall(np.array([1, 5, 6]), 5).tolist()
    [1.0, 1.0, 0.0]
    """
    return (np.asarray(positions) <= cutoff).astype(np.float64)


def ndcg(positions: NDArray[Any], cutoff: int) -> FloatArray:
    """NDCG@K per user; the ideal gain is 1 because there is one target.

    >>> ndcg(np.array([1, 2, 5, 11]), 10).round(5).tolist()
    [1.0, 0.63093, 0.38685, 0.0]
    """
    place = np.asarray(positions, dtype=np.float64)
    return np.where(place <= cutoff, 1.0 / np.log2(1.0 + place), 0.0)


def mrr(positions: NDArray[Any], cutoff: int) -> FloatArray:
    """MRR@K per user.

    >>> mrr(np.array([1, 4, 11]), 10).tolist()
    [1.0, 0.25, 0.0]
    """
    place = np.asarray(positions, dtype=np.float64)
    return np.where(place <= cutoff, 1.0 / place, 0.0)


METRICS: Final[dict[str, Callable[[NDArray[Any], int], FloatArray]]] = {"recall": recall, "ndcg": ndcg, "mrr": mrr}


def metric_names(cutoffs: Iterable[int] = CUTOFFS) -> list[str]:
    """Every metric at every cutoff.

    >>> metric_names([10])
    ['recall@10', 'ndcg@10', 'mrr@10']
    """
    return [f"{name}@{cutoff}" for cutoff in cutoffs for name in METRICS]


def metric_values(positions: NDArray[Any], name: str) -> FloatArray:
    """Values per user of one metric by its name.

    Raises:
        UnknownNameError: no metric is called so.

    >>> metric_values(np.array([1, 2]), "ndcg@5").round(5).tolist()
    [1.0, 0.63093]
    """
    kind, _, cutoff = name.partition("@")
    if kind not in METRICS or not cutoff.isdigit() or int(cutoff) < 1:
        raise UnknownNameError("metric", name, metric_names())
    return METRICS[kind](positions, int(cutoff))


def mean_metrics(positions: NDArray[Any], cutoffs: Iterable[int] = CUTOFFS) -> dict[str, float]:
    """Means over users of every metric at every cutoff; an empty dict where there is no user.

    >>> mean_metrics(np.array([1, 3]), [2])
    {'recall@2': 0.5, 'ndcg@2': 0.5, 'mrr@2': 0.5}
    >>> mean_metrics(np.array([]))
    {}
    """
    if len(positions) == 0:
        return {}
    return {name: float(metric_values(positions, name).mean()) for name in metric_names(cutoffs)}
