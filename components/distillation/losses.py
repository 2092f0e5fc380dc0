"""The distillation loss: how far the student's distribution is from the fused one (PRM-KD, Eq. 5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from components.data.batching import Batch
from components.distillation.config import Direction
from components.distillation.teacher_scores import FLOOR
from components.schema import PAD


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
    result: Tensor = _Divergence.apply(student_scores, fused, direction)  # type: ignore[no-untyped-call]
    return result


class _Divergence(torch.autograd.Function):
    """Mean divergence of rows; the gradient is made in the forward pass, where all it needs is at hand.

    With p = softmax(z): d KL(p||q) / dz = p (log p - log q - KL), and d KL(q||p) / dz = p - q.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, fused: Tensor, direction: Direction) -> Tensor:
        log_q = fused.clamp_min(FLOOR).log_()
        log_p = scores.log_softmax(dim=1).to(log_q.dtype)
        p = log_p.exp()
        gap = log_p.sub_(log_q)  # (B, T) log p - log q
        if direction == "p||q":
            rows = torch.linalg.vecdot(p, gap)  # (B,)
            gradient = p.mul_(gap.sub_(rows[:, None]))
        else:
            rows = -torch.linalg.vecdot(fused, gap)
            gradient = p.sub_(fused)
        ctx.save_for_backward(gradient.div_(len(scores)).to(scores.dtype))
        mean: Tensor = rows.mean()
        return mean

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None


def unique_candidates(targets: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) distinct targets in ascending order, and (B,) the column of each instance's own target.

    >>> [part.tolist() for part in unique_candidates(torch.tensor([7, 7, 3]))]  # check C8
    [[3, 7], [1, 1, 0]]
    """
    candidates, columns = torch.unique(targets, return_inverse=True)
    return candidates, columns


def seen_candidates(batch: Batch, step: int, candidates: Tensor) -> Tensor:
    """(B, T) whether a candidate is in the history of every `step`-th instance; its own target never is."""
    positions, width = batch.positions[::step], batch.items.shape[1]
    row = torch.div(positions, width, rounding_mode="floor")
    column = torch.full((int(candidates.max()) + 1,), len(candidates), device=candidates.device)  # default: none
    column[candidates] = torch.arange(len(candidates), device=candidates.device)
    history = batch.items[row].masked_fill(
        torch.arange(width, device=positions.device) > (positions % width)[:, None], PAD
    )  # (B, L)
    history = history.masked_fill(history >= len(column), PAD)
    seen = torch.zeros(len(positions), len(candidates) + 1, dtype=torch.bool, device=candidates.device)
    seen.scatter_(1, column[history], True)
    return seen[:, :-1] & (candidates != batch.targets[::step, None])
