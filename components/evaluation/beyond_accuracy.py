"""What a list is worth beyond hitting the target: coverage, novelty, fairness of exposure, variety."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.schema import PAD

CHUNK = 2048  # lists whose vectors are in memory at once


def exposure(lists: NDArray[Any], num_items: int) -> NDArray[np.int64]:
    """(N,) how often each item 1..N is recommended; PAD, which fills lists that are too short, does not count."""
    return np.bincount(lists[lists != PAD].ravel(), minlength=num_items + 1)[1:]


def catalog_coverage(lists: NDArray[Any], num_items: int) -> float:
    """Share of the catalogue that is recommended to anybody.

    >>> catalog_coverage(np.array([[1, 2], [1, 3]]), 4)
    0.75
    """
    return float((exposure(lists, num_items) > 0).mean())


def novelty(lists: NDArray[Any], counts: NDArray[np.int64]) -> float:
    """Mean self-information ``-log2 p(item)`` of the recommended items, in bits; 0 for empty lists.

    ``p`` is the item's share of training interactions, each item counted once more so that unseen ones stay finite.

    >>> round(novelty(np.array([[1], [2]]), np.array([0, 5, 1])), 4)
    1.2075
    """
    shown = lists[lists != PAD]
    if shown.size == 0:
        return 0.0
    smoothed = counts[1:] + 1.0
    information = -np.log2(smoothed / smoothed.sum())
    return float(information[shown - 1].mean())


def gini(values: NDArray[Any]) -> float:
    """Gini coefficient: 0 where all values are equal, near 1 where one has everything; 0 for no or only zero values.

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    total = float(values.sum())
    if total == 0:
        return 0.0
    number = len(values)
    weights = 2.0 * np.arange(1, number + 1) - number - 1
    return float((weights * np.sort(values)).sum() / (number * total))


def intra_list_similarity(lists: NDArray[Any], vectors: NDArray[np.floating[Any]]) -> float:
    """Mean cosine similarity of the pairs within a list; lower is more varied; 0 where no list has two items.

    The sum over pairs is ``(|sum of unit vectors|^2 - number of items) / 2``, so no pair is ever formed.

    Args:
        lists: (C, k) item numbers.
        vectors: (N + 1, d) item vectors; items without one (all zero) are left out.

    >>> intra_list_similarity(np.array([[1, 2], [1, 3]]), np.array([[0, 0], [1, 0], [1, 0], [0, 1.0]]))
    0.5
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[PAD] = 0
    unit = np.divide(vectors, norms, out=np.zeros(vectors.shape, dtype=np.float32), where=norms > 0)
    sizes = (norms[:, 0] > 0)[lists].sum(axis=1)
    chunks = [lists[begin : begin + CHUNK] for begin in range(0, len(lists), CHUNK)]
    squares = np.concatenate([(unit[chunk].sum(axis=1, dtype=np.float64) ** 2).sum(axis=1) for chunk in chunks] or [[]])
    several = sizes > 1
    if not several.any():
        return 0.0
    return float(((squares - sizes)[several] / (sizes * (sizes - 1))[several]).mean())


def beyond_accuracy(
    lists: NDArray[Any],
    counts: NDArray[np.int64],
    vectors: NDArray[np.floating[Any]] | None = None,
) -> dict[str, float]:
    """Coverage, novelty and Gini of exposure, and the intra-list similarity where item vectors exist.

    Args:
        lists: (C, k) recommended items.
        counts: (N + 1,) training interactions per item.
        vectors: (N + 1, d) item vectors, such as those of the texts.
    """
    num_items = len(counts) - 1
    values = {
        "coverage": catalog_coverage(lists, num_items),
        "novelty": novelty(lists, counts),
        "gini": gini(exposure(lists, num_items)),
    }
    if vectors is not None:
        values["intra_list_similarity"] = intra_list_similarity(lists, vectors)
    return values
