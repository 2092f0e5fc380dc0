"""Stage ``pretrain``: a teacher learns from other domains before it is tuned on the run's own data."""

from __future__ import annotations

from components.errors import ConfigError
from pipelines.pretraining_job import INDUCTIVE, PRETRAINABLE, DomainFolders, PretrainingJob
from pipelines.stages import StageContext
from pipelines.train_bridge import run_training


def run(context: StageContext) -> None:
    """Pre-train the teacher `context.name` and write its artifact; only adaptor and encoder of it are used later.

    Raises:
        ConfigError: no section `pretrain`, no text vectors, or a kind of teacher that cannot be pre-trained.
    """
    config, teacher = context.config, context.config.teachers[context.name]
    if config.pretrain is None:
        raise ConfigError(f"teachers.{context.name}.pretrained: true needs the section `pretrain` with its domains")
    if config.features is None:
        raise ConfigError("pretrain: domains share nothing but item texts; add a section `features`")
    if teacher.kind not in PRETRAINABLE:
        raise ConfigError(
            f"teachers.{context.name}.pretrained: a teacher of kind {teacher.kind!r} cannot be pre-trained; "
            f"kinds that can: {', '.join(PRETRAINABLE)}"
        )
    job = PretrainingJob(
        kind=teacher.kind,
        family="teacher",
        arguments={**teacher.arguments, **INDUCTIVE},
        training=config.pretrain.training,
        contrastive=config.pretrain.contrastive,
        seed=context.seed,
        folder=context.folder,
        work=context.work,
        domains=tuple(
            DomainFolders(name, context.input(f"prepare/{name}"), context.input(f"features/{name}"))
            for name in config.domains
        ),
        mask_history=config.evaluate.mask_history,
    )
    context.timing.update(run_training(job, config.cluster, context.progress))
