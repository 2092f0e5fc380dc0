"""Stage ``distill``: train one student with one seed, alone or after the teachers."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.artifacts.format import read_json
from components.distillation.config import DistillationConfig
from components.schema import MANIFEST_FILE
from components.training.config import TrainingConfig
from pipelines.config import COUNTING, RunConfig
from pipelines.search.config import RESULT_FILE, SEARCHED, WINNER
from pipelines.stages import StageContext
from pipelines.study.plan import Setting
from pipelines.train_bridge import run_training
from pipelines.training_job import TrainingJob


def run(context: StageContext) -> None:
    """Train the student of the variant and write its artifact."""
    if context.variant == SEARCHED and _take_winner(context):
        return
    setting = _setting(context)
    distilled = setting.distillation is not None
    job = TrainingJob(
        kind=setting.kind,
        family="baseline" if setting.kind in COUNTING else "student",
        arguments=setting.arguments,
        training=setting.training,
        seed=context.seed,
        prepared=context.input("annotate" if distilled else "prepare"),
        folder=context.folder,
        work=context.work,
        distillation=setting.distillation,
        mask_history=context.config.evaluate.mask_history,
        start=start_of(context.config, setting.kind),
    )
    context.timing.update(run_training(job, context.config.cluster, context.progress))


def start_of(config: RunConfig, kind: str) -> Path | None:
    """The artifact that a student of a kind begins with, absolute: workers have another current folder."""
    return Path(config.start).absolute() if config.start and kind == config.student.kind else None


def _setting(context: StageContext) -> Setting:
    """Which student, and how it learns: as the configuration says, or as the search found."""
    if context.variant == SEARCHED:
        found = read_json(context.input("search") / RESULT_FILE)["winner"]
        student = dict(found["student"])
        taught = found["distillation"]
        return Setting(
            student.pop("kind"),
            student,
            TrainingConfig.model_validate(found["training"]),
            DistillationConfig.model_validate(taught) if taught else None,
        )
    variant = context.config.variant(context.variant)
    return Setting(variant.student.kind, variant.student.arguments, context.config.training, variant.distillation)


def _take_winner(context: StageContext) -> bool:
    """Whether the search trained this very student with this seed; then its artifact is taken."""
    folder = context.input("search")
    if read_json(folder / RESULT_FILE)["winner"]["seed"] != context.seed:
        return False
    shutil.copytree(folder / WINNER, context.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_FILE))
    return True
