"""Seeds: one number decides every random choice of a training run."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and PyTorch on every device.

    Batch order does not come from here: `TrainingBatches` derives it from its own seed and the epoch.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
