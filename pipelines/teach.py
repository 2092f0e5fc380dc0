"""Stage ``teach``: tune one teacher on the prepared set; nodes of several teachers run side by side."""

from __future__ import annotations

import json
from pathlib import Path

from components.data.prepared import PreparedSet
from components.schema import METRICS_FILE
from components.teachers.external import EXTERNAL
from pipelines.preflight import check_pretrained, read_external
from pipelines.stages import StageContext
from pipelines.train_bridge import run_training
from pipelines.training_job import METRIC, TrainingJob


def run(context: StageContext) -> None:
    """Train the teacher `context.name` and write its artifact."""
    teacher = context.config.teachers[context.name]
    if teacher.kind == EXTERNAL:
        take_external(context)
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
        pretrained=_pretrained(context),
        mask_history=context.config.evaluate.mask_history,
    )
    context.timing.update(run_training(job, context.config.cluster_of(context.name), context.progress))


def _pretrained(context: StageContext) -> Path | None:
    """The pre-trained artifact to start from: this run's own, or that of another run.

    Raises:
        DistilrecError: see `check_pretrained`.
    """
    teacher = context.config.teachers[context.name]
    if not isinstance(teacher.pretrained, str):
        return context.inputs.get(f"pretrain/{context.name}")
    folder = Path(teacher.pretrained).absolute()  # workers have another current folder
    overlap = check_pretrained(context.config, context.name, folder, PreparedSet(context.input("prepare")))
    if overlap.found:
        context.progress.note(overlap.describe())
    return folder


def take_external(context: StageContext) -> None:
    """Check the user's two arrays and store them as the teacher's artifact; nothing is trained.

    Raises:
        DistilrecError: see `read_external`.
    """
    teacher = context.config.teachers[context.name]
    arrays, strength = read_external(context.name, teacher.arguments, PreparedSet(context.input("prepare")))
    arrays.save(context.folder)
    text = json.dumps({f"valid_{METRIC}": strength}, indent=2) + "\n"
    (context.folder / METRICS_FILE).write_text(text, encoding="utf-8")
