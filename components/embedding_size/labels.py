"""From ratings to what is predicted, and how far a prediction is off."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from components.embedding_size.config import CLASSES, Task

THRESHOLD: Final = 3.5  # ratings above it are positive (section 3.4: 4 and 5)
SCALE: Final = (0.5, 5.0)  # of half stars, which five classes need


def binary_labels(ratings: NDArray[np.float32], threshold: float = THRESHOLD) -> NDArray[np.int8]:
    """1 where a rating is above `threshold`.

    >>> binary_labels(np.array([0.5, 3.5, 4.0, 5.0], np.float32)).tolist()
    [0, 0, 1, 1]
    """
    above: NDArray[np.int8] = (ratings > threshold).astype(np.int8)
    return above


def class_labels(ratings: NDArray[np.float32]) -> NDArray[np.int8]:
    """Grades 0 to 4 of ratings from 0.5 to 5: floor(rating - 0.5), as the authors' code.

    >>> class_labels(np.array([0.5, 1, 1.5, 3.5, 4, 4.5, 5], np.float32)).tolist()
    [0, 0, 1, 3, 3, 4, 4]
    """
    grades: NDArray[np.int8] = np.clip(np.floor(ratings - 0.5), 0, CLASSES - 1).astype(np.int8)
    return grades


def row_losses(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """(B,) loss of every prediction: squared error of the probability (Eq. 3), or cross entropy (Eq. 4).

    Args:
        logits: (B, 1) or (B, 5).
        labels: (B,) int64.
        task: which of the two.
    """
    if task == "binary":
        return (torch.sigmoid(logits[:, 0]) - labels.to(logits.dtype)) ** 2
    return functional.cross_entropy(logits, labels, reduction="none")


def correct(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """(B,) bool: whether the more probable label is the right one; a probability of one half counts as negative."""
    predicted = (logits[:, 0] > 0).long() if task == "binary" else logits.argmax(1)
    return predicted == labels
