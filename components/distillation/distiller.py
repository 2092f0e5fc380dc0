"""The objective of a distilled student: supervised loss plus lambda times the distance to the teachers (Eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from components.data.batching import Batch
from components.distillation.config import DistillationConfig
from components.distillation.consistency import (
    Weights,
    base_weights,
    calibrate,
    consistency_weights,
    disagreement,
    fuse,
)
from components.distillation.losses import kd_loss, seen_candidates, unique_candidates
from components.distillation.teacher_scores import TeacherCache, normalize
from components.model import Ranker


@dataclass
class Tally:
    """Sums over all distilled instances, for the report.

    Attributes:
        instances: how many.
        weights: (K,) sum of the final weights.
        dropped: (K,) how often each teacher was left out.
        disagreement: (K,) sum of Eq. 2.
    """

    instances: int = 0
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))
    dropped: Tensor = field(default_factory=lambda: torch.zeros(0))
    disagreement: Tensor = field(default_factory=lambda: torch.zeros(0))

    def add(self, decided: Weights) -> None:
        """Count one batch."""
        teachers = len(decided.weights)
        if not len(self.weights):
            self.weights, self.dropped, self.disagreement = (
                torch.zeros(teachers, dtype=torch.float64) for _ in range(3)
            )
        self.instances += decided.weights.shape[1]
        self.weights += decided.weights.sum(dim=1).double().cpu()
        self.disagreement += decided.disagreement.sum(dim=1).double().cpu()
        self.dropped += torch.bincount(decided.dropped[decided.dropped >= 0], minlength=teachers).double().cpu()


class Distiller:
    """Loss of a student on a batch of annotated instances; a callable that the training loop uses as its objective.

    Args:
        student: any `Ranker`.
        cache: the teachers.
        names: their names, in the order of `cache`.
        strengths: their validation NDCG@10.
        config: how they are fused.
    """

    def __init__(
        self,
        student: Ranker,
        cache: TeacherCache,
        names: Sequence[str],
        strengths: Sequence[float],
        config: DistillationConfig,
    ) -> None:
        self.student, self.cache, self.names, self.config = student, cache, list(names), config
        uniform = config.base_weights == "uniform" or config.weights == "average"
        self.weights = base_weights([1.0] * len(self.names) if uniform else strengths)
        self.epsilon = self._start()
        self.tally = Tally()

    def __call__(self, batch: Batch) -> Tensor:
        """``L = L_S + lambda * L_KD``, means over the batch's instances; lambda = 0 costs and changes nothing."""
        states = self.student.states(batch)
        loss = self.student.head.loss(states, batch.targets)
        if self.config.weight == 0 or len(batch.targets) == 0:
            return loss
        return loss + self.config.weight * self.distillation_loss(states, batch)

    def distillation_loss(self, states: Tensor, batch: Batch) -> Tensor:
        """L_KD (Eq. 5) over the batch, or over an even sample of at most ``max_instances`` of it."""
        scores, candidates, step = self.teacher_scores(batch)
        decided = consistency_weights(scores, self.weights, self.epsilon)
        self.tally.add(decided)
        student_scores = self.student.head.scores(states[::step], candidates) / self.config.student_temperature
        return kd_loss(student_scores, fuse(scores, decided.weights), self.config.direction)

    def teacher_scores(self, batch: Batch) -> tuple[Tensor, Tensor, int]:
        """(K, B, T) distributions over (T,) candidates for every `step`-th instance of the batch, and that step."""
        limit = self.config.max_instances
        step = 1 if limit is None else -(-len(batch.targets) // limit)
        candidates = self.candidates(batch.targets[::step])
        scores = self.cache.scores(batch.instances[::step], candidates)
        if self.config.seen == "drop":
            scores = normalize(scores.masked_fill_(seen_candidates(batch, step, candidates), 0.0))
        return scores, candidates, step

    def candidates(self, targets: Tensor) -> Tensor:
        """(T,) the items over which student and teachers are compared; every target is among them."""
        if self.config.candidates == "all":
            return torch.arange(1, self.student.num_items + 1, device=targets.device)
        return unique_candidates(targets)[0] if self.config.dedup else targets

    @torch.no_grad()
    def calibrate(self, batches: Sequence[Batch]) -> float:
        """Set epsilon from training batches when it is "auto"; teachers alone decide, so it is done once."""
        if self.config.epsilon == "auto" and self.config.weights == "consistency" and len(self.cache) > 2:
            largest = [disagreement(self.teacher_scores(batch)[0]).amax(dim=0) for batch in batches]
            self.epsilon = calibrate(torch.cat(largest))
        return self.epsilon

    def report(self) -> dict[str, object]:
        """Weights and drops by teacher, for ``distillation.json``."""
        count = max(self.tally.instances, 1)
        sums = {
            "dropped": self.tally.dropped,
            "mean_weights": self.tally.weights,
            "mean_confidence": self.tally.disagreement,
        }
        return {
            "teachers": self.names,
            "base_weights": dict(zip(self.names, self.weights.tolist(), strict=True)),
            "epsilon": self.epsilon if self.epsilon != float("inf") else None,
            "instances": self.tally.instances,
            **{key: dict(zip(self.names, (value / count).tolist(), strict=False)) for key, value in sums.items()},
        }

    def _start(self) -> float:
        if self.config.weights != "consistency" or self.config.epsilon == "auto":
            return float("inf")
        return self.config.epsilon
