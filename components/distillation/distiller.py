"""The objective of a distilled student: supervised loss plus weighted distances to the teachers (Eq. 6, and beyond)."""

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
from components.distillation.geometry import fused_similarities, geometry_loss, sample_items
from components.distillation.losses import kd_loss, seen_candidates, unique_candidates
from components.distillation.teacher_scores import TeacherCache, normalize
from components.errors import ConfigError
from components.layers.embedding import ItemEmbedding
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
        strengths: their validation NDCG@10, to which base weights are in proportion.
        config: how they are fused.
        item_embedding: the student's item vectors, which `item_geometry` moves; None where it has none.

    Raises:
        ConfigError: `item_geometry` is set and the student has no item table.
    """

    def __init__(
        self,
        student: Ranker,
        cache: TeacherCache,
        names: Sequence[str],
        strengths: Sequence[float],
        config: DistillationConfig,
        item_embedding: ItemEmbedding | None = None,
    ) -> None:
        if config.item_geometry and item_embedding is None:
            raise ConfigError(
                f"distillation.item_geometry: {type(student).__name__} has no item table that could follow the "
                "teachers'; set it to 0 or choose another student"
            )
        self.student, self.cache, self.names, self.config = student, cache, list(names), config
        self.item_embedding = item_embedding
        uniform = config.base_weights == "uniform" or config.weights == "average"
        self.weights = base_weights([1.0] * len(self.names) if uniform else strengths)
        unknown = config.weights != "consistency" or config.epsilon == "auto"
        self.epsilon = float("inf") if unknown else float(config.epsilon)  # inf drops nobody
        self.tally = Tally()

    def __call__(self, batch: Batch) -> Tensor:
        """``L = L_S + lambda * L_KD + item_geometry * L_G``; a weight of 0 costs and changes nothing.

        L_S and L_KD are means over the batch's instances, L_G over items.
        """
        states = self.student.states(batch)
        loss = self.student.head.loss(states, batch.targets)
        if len(batch.targets) == 0:
            return loss
        if self.config.weight:
            loss = loss + self.config.weight * self.distillation_loss(states, batch)
        if self.config.item_geometry:
            loss = loss + self.config.item_geometry * self.geometry_loss(batch)
        return loss

    def distillation_loss(self, states: Tensor, batch: Batch) -> Tensor:
        """L_KD (Eq. 5) over the batch, or over an even sample of at most ``max_instances`` of it."""
        scores, candidates, step = self.teacher_scores(batch)
        decided = consistency_weights(scores, self.weights, self.epsilon)
        self.tally.add(decided)
        student_scores = self.student.head.scores(states[::step], candidates) / self.config.student_temperature
        return kd_loss(student_scores, fuse(scores, decided.weights), self.config.direction)

    def geometry_loss(self, batch: Batch) -> Tensor:
        """L_G: how far the likeness of the candidates in the student's item table is from that of the teachers'."""
        assert self.item_embedding is not None  # the constructor refuses
        items = sample_items(self.candidates(batch.targets))
        temperature = self.config.item_temperature
        fused = fused_similarities(self.cache.item_vectors(items), self.weights, temperature)
        return geometry_loss(self.item_embedding(items), fused, temperature, self.config.direction)

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
    def calibrate(self, batches: Sequence[Batch]) -> None:
        """Set epsilon from training batches where it is "auto"; teachers alone decide, so it is done once."""
        if len(self.cache) <= 2 or self.config.weights != "consistency" or self.config.epsilon != "auto":
            return  # two disagree equally
        scores = (self.teacher_scores(batch)[0] for batch in batches)
        self.epsilon = calibrate(torch.cat([disagreement(some).amax(dim=0) for some in scores]))

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
            "base_weights_from": self.config.base_weights if self.config.weights != "average" else "uniform",
            "epsilon": self.epsilon if self.epsilon != float("inf") else None,
            "instances": self.tally.instances,
            **{key: dict(zip(self.names, (value / count).tolist(), strict=False)) for key, value in sums.items()},
        }
