"""The output head of teachers that score by cosine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from components.losses import chunked_cross_entropy
from components.model import OutputHead

# Shorter vectors are not scaled up to 1: the gradient of a vector that is (almost) zero stays bounded by 1 / MIN_NORM.
MIN_NORM = 1e-4


def unit(x: Tensor) -> Tensor:
    """(..., D) -> (..., D) with L2 norm 1; vectors shorter than `MIN_NORM` stay short."""
    return F.normalize(x, dim=-1, eps=MIN_NORM)


class CosineHead(OutputHead):
    """Score = cosine / temperature (UniSRec, Eq. 10). States must have norm 1 already.

    Args:
        vectors: gives the (N, D) normalized vectors of all items; row ``i`` belongs to item ``i + 1``.
        temperature: divides the cosines.
    """

    def __init__(self, vectors: Callable[[], Tensor], temperature: float) -> None:
        super().__init__()
        self._vectors = vectors
        self.temperature = temperature

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Full-catalog softmax cross-entropy; PAD does not compete."""
        return self.loss_against(states, self._vectors(), targets)

    def loss_against(self, states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
        """The same loss for item vectors (N, D) that the caller has at hand."""
        return chunked_cross_entropy(states, vectors, targets - 1, scale=1.0 / self.temperature)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, D), (C,) -> (P, C)."""
        return torch.mm(states, self._vectors()[candidates - 1].t()) / self.temperature

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, D) -> (P, stop - start)."""
        return torch.mm(states, self._vectors()[start - 1 : stop - 1].t()) / self.temperature
