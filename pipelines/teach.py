"""Stage ``teach``: tune one teacher on the prepared set; nodes of several teachers run side by side."""

from __future__ import annotations

from pipelines.stages import StageContext
from pipelines.train_bridge import run_training
from pipelines.training_job import TrainingJob

EXTERNAL = "external"


def run(context: StageContext) -> None:
    """Train the teacher `context.name` and write its artifact."""
    teacher = context.config.teachers[context.name]
    if teacher.kind == EXTERNAL:
        from pipelines.external import run_external

        run_external(context, teacher)
        return
    job = TrainingJob(
        kind=teacher.kind,
        family="teacher",
        arguments=teacher.arguments,
        training=teacher.training,
        seed=context.seed,
        prepared=context.input("prepare"),
        folder=context.folder,
        work=context.work,
        features=context.inputs.get("features"),
        pretrained=context.inputs.get(f"pretrain/{context.name}"),
        mask_history=context.config.evaluate.mask_history,
    )
    context.timing.update(run_training(job, context.config.cluster, context.progress))
