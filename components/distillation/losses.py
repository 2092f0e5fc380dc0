"""The distillation loss: how far the student's distribution is from the fused one (PRM-KD, Eq. 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from components.distillation.config import Direction
from components.distillation.teacher_scores import FLOOR


def kd_loss(student_scores: Tensor, fused: Tensor, direction: Direction = "p||q") -> Tensor:
    """Mean over rows of a Kullback-Leibler divergence between p = softmax(student_scores) and q = `fused`.

    Args:
        student_scores: (B, T) logits.
        fused: (B, T) distribution q, no gradient.
        direction: "p||q" is KL(student || teacher) as the paper writes it, "q||p" the usual direction.

    Returns:
        A scalar in nats; 0 for an empty batch.

    >>> q = torch.tensor([[0.44, 0.30, 0.16, 0.10]])
    >>> round(kd_loss(torch.tensor([[1.0, 0.0, 0.0, -1.0]]), q).item(), 6)  # check C3
    0.037932
    """
    if student_scores.numel() == 0:
        return student_scores.sum() * 0.0
    log_p = student_scores.log_softmax(dim=1)
    log_q = fused.clamp_min(FLOOR).log()
    if direction == "p||q":
        rows = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    else:
        rows = (fused * (log_q - log_p)).sum(dim=1)
    return rows.mean()


def unique_candidates(targets: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) distinct targets in ascending order, and (B,) the column of each instance's own target.

    >>> [part.tolist() for part in unique_candidates(torch.tensor([7, 7, 3]))]  # check C8
    [[3, 7], [1, 1, 0]]
    """
    candidates, columns = torch.unique(targets, return_inverse=True)
    return candidates, columns
