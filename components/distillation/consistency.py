"""Which teacher to trust for which instance: disagreement, what follows from it, the fused distribution (Eqs. 2, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KEPT = -1  # no teacher is dropped


class Weights(NamedTuple):
    """Weights of the teachers for every instance.

    Attributes:
        weights: (K, B), non-negative, columns sum to 1.
        disagreement: (K, B), Eq. 2; larger = less trustworthy, although the paper calls it confidence.
        dropped: (B,) the teacher that is left out, or -1.
    """

    weights: Tensor
    disagreement: Tensor
    dropped: Tensor


def base_weights(strengths: Sequence[float]) -> Tensor:
    """(K,) weights in proportion to the teachers' validation NDCG@10; equal where all are 0.

    >>> base_weights([0.03, 0.01]).tolist()
    [0.75, 0.25]
    """
    values = torch.tensor(list(strengths), dtype=torch.float32)
    if bool((values < 0).any()) or not bool(torch.isfinite(values).all()):
        raise ValueError(f"strengths of teachers must be finite and not negative, got {list(strengths)}")
    total = values.sum()
    return values / total if total > 0 else torch.full_like(values, 1.0 / len(values))


def disagreement(scores: Tensor) -> Tensor:
    """Eq. 2: (K, B, T) distributions -> (K, B) summed squared distance of each teacher to the others.

    With S the sum of all, sum over k' of |s_k - s_k'|^2 = K |s_k|^2 - 2 <s_k, S> + sum over k' of |s_k'|^2, so that no
    (K, K, B, T) is built; two teachers take the plain difference, which is exact.
    """
    teachers = len(scores)
    if teachers == 1:
        return scores.new_zeros(scores.shape[:2])
    if teachers == 2:
        return (scores[0] - scores[1]).square().sum(dim=-1).expand(2, -1)
    norms = scores.square().sum(dim=-1)  # (K, B)
    mixed = (scores * scores.sum(dim=0)).sum(dim=-1)
    return (teachers * norms - 2 * mixed + norms.sum(dim=0)).clamp_min(0.0)


def consistency_weights(scores: Tensor, weights: Tensor, epsilon: float) -> Weights:
    """Drop the teacher that disagrees most wherever any disagreement reaches `epsilon`; the others share its weight.

    Args:
        scores: (K, B, T) distributions.
        weights: (K,) base weights, sum 1.
        epsilon: threshold; inf keeps all, 0 always drops one. Two teachers disagree equally, so none is dropped.
    """
    teachers, batch = scores.shape[:2]
    conf = disagreement(scores)
    chosen = weights.to(scores)[:, None].expand(teachers, batch)
    if teachers <= 2:
        return Weights(chosen, conf, torch.full((batch,), KEPT, device=scores.device))
    worst = conf.argmax(dim=0)  # (B,), the lowest index on a tie
    triggered = conf.amax(dim=0) >= epsilon
    lost = torch.nn.functional.one_hot(worst, teachers).t().to(scores)  # (K, B)
    moved = chosen * (1 - lost) + (1 - lost) * (chosen * lost).sum(dim=0) / (teachers - 1)
    dropped = torch.where(triggered, worst, KEPT)
    return Weights(torch.where(triggered, moved, chosen), conf, dropped)


def fuse(scores: Tensor, weights: Tensor) -> Tensor:
    """Eq. 3: (K, B, T) distributions and (K, B) weights -> (B, T) fused distribution q, rows sum to 1."""
    fused = torch.einsum("kbt,kb->bt", scores, weights)
    return fused / fused.sum(dim=1, keepdim=True)


def calibrate(values: Tensor, quantile: float = 0.8) -> float:
    """The `quantile` of the largest disagreement of every instance seen so far (n,); inf where there is none."""
    return float(torch.quantile(values.float()[: 1 << 24], quantile)) if len(values) else float("inf")
