"""Stage ``teach``: tune one teacher on the prepared set; nodes of several teachers run side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from components.artifacts.format import verify
from components.artifacts.models import read_model_config
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, ConfigError
from components.evaluation.metrics import metric_values
from components.schema import METRICS_FILE
from components.teachers.external import EXTERNAL, ExternalConfig, load_external
from pipelines.config import MAX_OVERLAP
from pipelines.overlap import compare_artifact
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
        ArtifactError: the other run's artifact is damaged or of another kind.
        DataError: it learnt from too many of the run's own items.
    """
    config, teacher = context.config, context.config.teachers[context.name]
    if not isinstance(teacher.pretrained, str):
        return context.inputs.get(f"pretrain/{context.name}")
    folder = Path(teacher.pretrained).absolute()  # workers have another current folder
    verify(folder)
    kind = read_model_config(folder).kind
    if kind != teacher.kind:
        raise ArtifactError(f"teachers.{context.name}.pretrained: {folder} holds a {kind}, expected a {teacher.kind}")
    overlap = compare_artifact(PreparedSet(context.input("prepare")), folder)
    limit = config.pretrain.max_overlap if config.pretrain else MAX_OVERLAP
    overlap.check(limit, f"{folder} knows what this run is tested on; pre-train without those domains")
    if overlap.found:
        context.progress.note(overlap.describe())
    return folder


def take_external(context: StageContext) -> None:
    """Check the user's two arrays and store them as the teacher's artifact; nothing is trained.

    Raises:
        ConfigError: its strength is neither given nor measurable: the states cover no validation histories.
    """
    teacher = context.config.teachers[context.name]
    config = ExternalConfig.model_validate(teacher.arguments)
    prepared = PreparedSet(context.input("prepare"))
    arrays = load_external(config, prepared)
    strength = config.strength
    if strength is None and arrays.valid_states is not None:
        targets = prepared.sequences.cases("valid").targets
        scores = arrays.valid_states @ arrays.items[1:].T  # (C, N)
        chosen = scores[np.arange(len(targets)), targets - 1]
        strength = float(metric_values((scores >= chosen[:, None]).sum(axis=1), METRIC).mean())
    if strength is None:
        raise ConfigError(
            f"teachers.{context.name}.strength: missing, and {config.states} holds no states of the validation "
            "histories to measure it; give the teacher's validation NDCG@10, or a file keyed by user_id and position"
        )
    arrays.save(context.folder)
    text = json.dumps({f"valid_{METRIC}": strength}, indent=2) + "\n"
    (context.folder / METRICS_FILE).write_text(text, encoding="utf-8")
