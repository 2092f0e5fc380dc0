"""What teachers say of a batch: cached states and item vectors, one matrix product each (PRM-KD, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

FLOOR = 1e-8  # smallest probability of a fused distribution


class TeacherCache:
    """Frozen teachers, reduced to arrays; widths d_k may differ.

    Args:
        states: per teacher (n, d_k), one row per training instance.
        items: per teacher (N + 1, d_k), row 0 is PAD.
        temperatures: tau_k > 0.
        reading: "softmax" counts the item itself in the denominator of Eq. 1, "odds" does not.
        normalization: how scores become a distribution over the candidates.
    """

    def __init__(
        self,
        states: Sequence[Tensor],
        items: Sequence[Tensor],
        temperatures: Sequence[float],
        reading: Literal["softmax", "odds"] = "softmax",
        normalization: Literal["l1", "minmax"] = "l1",
    ) -> None:
        if not len(states) == len(items) == len(temperatures) > 0:
            raise ValueError(
                f"one states, items and temperature per teacher, got {len(states)}, {len(items)}, {len(temperatures)}"
            )
        for k, (state, item) in enumerate(zip(states, items, strict=True)):
            if state.shape[1] != item.shape[1]:
                raise ValueError(f"teacher {k}: states have width {state.shape[1]}, items {item.shape[1]}")
        self.states, self.items, self.temperatures = list(states), list(items), list(temperatures)
        self.reading, self.normalization = reading, normalization

    def __len__(self) -> int:
        return len(self.states)

    @torch.no_grad()
    def scores(self, instances: Tensor, candidates: Tensor) -> Tensor:
        """(K, B, T) distributions over `candidates` (T,) for the training instances `instances` (B,)."""
        done = self.reading == "softmax" and self.normalization == "l1"  # rows of a softmax sum to 1 already
        found: Tensor | None = None
        for k, tau in enumerate(self.temperatures):
            scores = teacher_scores(self._logits(k, instances, candidates), tau, self.reading)
            found = scores.new_empty(len(self), *scores.shape) if found is None else found
            found[k] = scores if done else normalize(scores, self.normalization)
        assert found is not None  # a cache holds at least one teacher
        return found

    def item_vectors(self, items: Tensor) -> list[Tensor]:
        """Per teacher (T, d_k) fp32 vectors of `items` (T,), on their device."""
        return [self._vectors(k, items) for k in range(len(self))]

    def _vectors(self, k: int, items: Tensor) -> Tensor:
        return self.items[k][items.to(self.items[k].device)].to(items.device, torch.float32)

    def _logits(self, k: int, instances: Tensor, candidates: Tensor) -> Tensor:
        state = self.states[k][instances.to(self.states[k].device)].to(candidates.device, torch.float32)
        return state @ self._vectors(k, candidates).t()  # (B, T)


def teacher_scores(logits: Tensor, temperature: float, reading: Literal["softmax", "odds"] = "softmax") -> Tensor:
    """Eq. 1: (B, T) logits -> scores; with "odds" P / (1 - P), unbounded and not normalized.

    >>> [round(score, 4) for score in teacher_scores(torch.tensor([[1.0, 0.0, 0.6]]), 1.0)[0].tolist()]  # check C1
    [0.4906, 0.1805, 0.3289]
    """
    logits = logits.div(temperature)
    if reading == "softmax":
        return logits.softmax(dim=1)
    others = _log_sum_of_others(logits)
    return torch.exp((logits - others).clamp(max=60.0))


def _log_sum_of_others(logits: Tensor) -> Tensor:
    """(B, T) log of the sum of exp over all columns but one's own, from P: log(sum) + log(1 - P)."""
    total = logits.logsumexp(dim=1, keepdim=True)
    share = (logits - total).exp()
    return total + torch.log1p(-share.clamp(max=1 - 1e-7))


def normalize(scores: Tensor, kind: Literal["l1", "minmax"] = "l1") -> Tensor:
    """(..., T) non-negative scores -> rows that sum to 1."""
    if kind == "minmax":
        low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
        scores = (scores - low) / (high - low).clamp_min(FLOOR) + FLOOR
    return scores / scores.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
