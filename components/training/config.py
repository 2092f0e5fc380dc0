"""What a user may set about a training run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.data.batching import Windows


class TrainingConfig(BaseModel):
    """How a model is trained; the same form for students, teachers and pre-training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(100, ge=1, description="at most this many passes over the training part")
    batch_size: int = Field(128, ge=1, description="windows (users) per batch, over all workers")
    micro_batch: int | None = Field(
        None, ge=1, description="windows of a worker that are computed at once, gradients add up; null: the whole batch"
    )
    windows: Windows = Field("last", description="last: each user's latest window; all: the whole training part")
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0, description="L2 for adam, decoupled for adamw")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="decay over all epochs")
    warmup_steps: int = Field(0, ge=0, description="steps over which the learning rate rises from 0")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast on a GPU, fp32 on a CPU"
    )
    patience: int | None = Field(10, ge=1, description="stop after this many validations without a gain; null: never")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    validation_users: int | None = Field(None, ge=1, description="validate on a fixed sample of users; null: all")
    checkpoint_seconds: float = Field(60.0, ge=0, description="time between checkpoints inside an epoch")
