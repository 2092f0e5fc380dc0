"""The gate in front of a model that grew: what it knew before must rank as it did."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from components.data.batching import history_batch
from components.errors import StageError
from components.inference import one_thread
from components.model import Ranker
from components.schema import PAD

PROBES = 8  # random histories
LONGEST = 6


@torch.inference_mode()
def check_scores(before: Ranker, after: Ranker, seed: int = 0) -> None:
    """Compare the scores of all known items after some random histories of known items.

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
    with one_thread():
        old, new = _scores(before, histories), _scores(after, histories)
    if not bool(torch.isfinite(new[:, PAD + 1 :]).all()):
        raise StageError("a new item scores NaN or infinity; nothing was released, export the student again")
    if not torch.allclose(old, new[:, : old.shape[1]], rtol=1e-5, atol=1e-6):
        worst = float((old - new[:, : old.shape[1]])[:, PAD + 1 :].abs().max())
        raise StageError(f"scores of known items changed by up to {worst:.3g}; nothing was released")


def _scores(model: Ranker, histories: list[np.ndarray]) -> Tensor:
    """(P, N + 1)."""
    return model.eval().all_scores(history_batch(histories, model.max_length))
