"""Stage ``pretrain``: a teacher learns from other domains before it is tuned on the run's own data."""

from __future__ import annotations

import json

from components.data.prepared import PreparedSet
from components.errors import ConfigError
from pipelines.config import MAX_OVERLAP
from pipelines.overlap import Overlap, compare
from pipelines.pretraining_job import INDUCTIVE, PRETRAINABLE, WORDS, DomainFolders, PretrainingJob
from pipelines.recformer_pretraining_job import FULL, RecformerPretrainingJob
from pipelines.stages import EXTRA_MANIFEST_FILE, StageContext
from pipelines.train_bridge import run_training


def run(context: StageContext) -> None:
    """Pre-train the teacher `context.name` and write its artifact; only adaptor and encoder of it are used later.

    Raises:
        ConfigError: no section `pretrain`, no text vectors, or a kind of teacher that cannot be pre-trained.
        DataError: the domains hold too many of the run's own items.
    """
    config, teacher = context.config, context.config.teachers[context.name]
    if config.pretrain is None:
        raise ConfigError(f"teachers.{context.name}.pretrained: true needs the section `pretrain` with its domains")
    if config.features is None and teacher.kind != WORDS:
        raise ConfigError("pretrain: domains share nothing but item texts; add a section `features`")
    if teacher.kind not in PRETRAINABLE:
        raise ConfigError(
            f"teachers.{context.name}.pretrained: a teacher of kind {teacher.kind!r} cannot be pre-trained; "
            f"kinds that can: {', '.join(PRETRAINABLE)}"
        )
    overlap = _overlap(context)
    job_type, own = (RecformerPretrainingJob, FULL) if teacher.kind == WORDS else (PretrainingJob, INDUCTIVE)
    job = job_type(
        kind=teacher.kind,
        family="teacher",
        arguments={**teacher.arguments, **own},
        training=config.pretraining_of(context.name),
        contrastive=config.pretrain.contrastive,
        seed=context.seed,
        folder=context.folder,
        work=context.work,
        domains=tuple(
            DomainFolders(
                name,
                context.input(f"prepare/{name}"),
                context.input(f"features/{name}") if config.features else None,
                left_out,
            )
            for name, left_out in overlap.left_out.items()
        ),
        mask_history=config.evaluate.mask_history,
    )
    context.timing.update(run_training(job, config.cluster_of(context.name), context.progress))
    overlap.write_sources(context.folder)
    text = json.dumps(overlap.as_json(), indent=2, sort_keys=True) + "\n"
    (context.folder / EXTRA_MANIFEST_FILE).write_text(text, encoding="utf-8")


def _overlap(context: StageContext) -> Overlap:
    """The run's own items that also stand in a domain, reported.

    Raises:
        DataError: they are too many.
    """
    config = context.config
    domains = {name: PreparedSet(context.input(f"prepare/{name}")) for name in config.domains}
    overlap = compare(PreparedSet(context.input("prepare")), domains)
    limit = config.pretrain.max_overlap if config.pretrain else MAX_OVERLAP
    overlap.check(limit, "they would be left out of the domains; remove the domain that holds them, or raise the limit")
    if overlap.found:
        context.progress.note(f"{overlap.describe()}; left out there")
    return overlap
