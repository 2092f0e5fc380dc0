"""What a user may set about distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Direction = Literal["p||q", "q||p"]


class DistillationConfig(BaseModel):
    """How several teachers are fused and how strongly the student follows them (PRM-KD, arXiv 2401.00797)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teachers: list[str] | None = Field(None, description="names of teachers; null: all annotated ones")
    weight: float = Field(1.0, ge=0, description="lambda of Eq. 6, weight of the distillation loss")
    temperature: float = Field(0.5, gt=0, description="tau of Eq. 1 for every teacher without its own")
    temperatures: dict[str, float] = Field(default_factory=dict, description="tau by teacher")
    student_temperature: float = Field(1.0, gt=0, description="divides the student's scores in the distillation loss")
    weights: Literal["consistency", "average", "default"] = Field(
        "consistency",
        description="consistency: drop the teacher that disagrees; default: base weights; average: 1 / K",
    )
    base_weights: Literal["strength", "uniform"] = Field("strength", description="strength: validation NDCG@10")
    epsilon: float | Literal["auto"] = Field("auto", description="threshold on disagreement; auto: 0.8-quantile")
    calibration_batches: int = Field(20, ge=1, description="batches of the first epoch that set epsilon")
    direction: Direction = Field("p||q", description="p||q: KL(student || teacher) as written; q||p: the usual one")
    candidates: Literal["batch", "all"] = Field("batch", description="which items the distributions run over")
    seen: Literal["keep", "drop"] = Field(
        "keep", description="drop: teachers say nothing of items in the history; where nobody takes an item twice"
    )
    dedup: bool = Field(True, description="count an item once although it is the target of several instances")
    reading: Literal["softmax", "odds"] = Field("softmax", description="Eq. 1 with or without the item itself below")
    normalization: Literal["l1", "minmax"] = "l1"
    max_instances: int | None = Field(
        256, ge=2, description="distil at most this many instances of a batch, evenly taken; null: all"
    )
    item_geometry: float = Field(
        0.0, ge=0, description="weight of the loss that makes the student's items similar as the teachers' are"
    )
    item_temperature: float = Field(0.1, gt=0, description="divides the cosines of items, of student and teachers")
