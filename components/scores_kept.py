"""The gate in front of a model that grew: what it knew before must rank as it did."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.errors import StageError
from components.inference import Scorer, one_thread
from components.model import Ranker

PROBES = 8  # random histories
LONGEST = 6


def check_scores(before: Ranker, after: Ranker, seed: int = 0) -> None:
    """Compare the scores of all known items, as they are served, after some random histories of known items.

    They are equal to the bit where the processor sums a product of more columns in the same order, which all that were
    tried do; a difference beyond rounding is refused.

    Raises:
        StageError: a score has changed, or is no number.
    """
    generator = np.random.default_rng(seed)
    histories = [
        generator.integers(1, before.num_items + 1, size=int(generator.integers(1, LONGEST + 1))).astype(np.int32)
        for _ in range(PROBES)
    ]
    old, new = served_scores(before, histories), served_scores(after, histories)
    if not np.isfinite(new).all():
        raise StageError("a new item scores NaN or infinity; nothing was released, export the student again")
    change = np.abs(old - new[:, : before.num_items])
    if not (change <= 1e-6 + 1e-5 * np.abs(old)).all():
        raise StageError(f"scores of known items changed by up to {change.max():.3g}; nothing was released")


def served_scores(model: Ranker, histories: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    """(B, N) scores of all items as an endpoint computes them."""
    with one_thread():
        return Scorer(model, reproducible=True).scores(histories)
