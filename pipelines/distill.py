"""Stage ``distill``: train one student with one seed, alone or after the teachers."""

from __future__ import annotations

from pipelines.config import COUNTING
from pipelines.stages import StageContext
from pipelines.train_bridge import run_training
from pipelines.training_job import TrainingJob


def run(context: StageContext) -> None:
    """Train the student of the variant and write its artifact."""
    variant = context.config.variant(context.variant)
    distilled = variant.distillation is not None
    job = TrainingJob(
        kind=variant.student.kind,
        family="baseline" if variant.student.kind in COUNTING else "student",
        arguments=variant.student.arguments,
        training=context.config.training,
        seed=context.seed,
        prepared=context.input("annotate" if distilled else "prepare"),
        folder=context.folder,
        work=context.work,
        distillation=variant.distillation,
        mask_history=context.config.evaluate.mask_history,
    )
    context.timing.update(run_training(job, context.config.cluster, context.progress))
