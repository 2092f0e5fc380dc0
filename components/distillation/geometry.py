"""Item geometry: which items resemble each other, as the teachers see it and as the student's item table has it.

Not in PRM-KD. It compares relations instead of scores, as relational distillation does (RKD, arXiv 1904.05068; likeness
as a distribution over others: SEED, arXiv 2101.04731), so widths of teachers and student may differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from components.distillation.config import Direction
from components.distillation.losses import kd_loss

MOST_ITEMS = 512  # items that are compared with each other in one step


def similarity_logits(vectors: Tensor, temperature: float) -> Tensor:
    """(T, d) item vectors -> (T, T - 1) cosines of each with all others over `temperature`; a zero vector has zeros.

    Row j leaves out column j: an item's likeness to itself is always the largest and says nothing.

    >>> rows = similarity_logits(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]]), 0.5)
    >>> [[round(value, 4) for value in row] for row in rows.tolist()]
    [[0.0, 1.2], [0.0, 1.6], [1.2, 1.6]]
    """
    unit = F.normalize(vectors, dim=1)
    others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    return (unit @ unit.t())[others].view(len(vectors), max(len(vectors) - 1, 0)) / temperature


@torch.no_grad()
def fused_similarities(teachers: Sequence[Tensor], weights: Tensor, temperature: float) -> Tensor:
    """(T, T - 1) distribution over the other items, ``sum over k of w_k softmax(cos(e_j, .) / temperature)``.

    Args:
        teachers: per teacher (T, d_k) vectors of the same items.
        weights: (K,) base weights, sum 1.
        temperature: > 0.
    """
    rows = torch.stack([similarity_logits(own, temperature).softmax(dim=1) for own in teachers])
    return torch.einsum("kij,k->ij", rows, weights.to(rows))


def geometry_loss(vectors: Tensor, fused: Tensor, temperature: float, direction: Direction = "p||q") -> Tensor:
    """Mean over items of the divergence between the student's and the teachers' distribution over the other items.

    Args:
        vectors: (T, D) the student's item vectors.
        fused: (T, T - 1) what `fused_similarities` gave, no gradient.
        temperature: that of `fused`.
        direction: see `kd_loss`.

    Returns:
        A scalar in nats; 0 where fewer than two items are compared.
    """
    return kd_loss(similarity_logits(vectors, temperature), fused, direction)


def sample_items(items: Tensor, most: int = MOST_ITEMS) -> Tensor:
    """Distinct items of (T,), ascending; where there are more than `most`, so many drawn by torch's generator."""
    distinct: Tensor = torch.unique(items)
    if len(distinct) > most:
        distinct = distinct[torch.randperm(len(distinct), device=items.device)[:most].sort().values]
    return distinct
