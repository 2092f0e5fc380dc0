"""Stage ``teach``: tune one teacher on the prepared set; nodes of several teachers run side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.format import verify
from components.artifacts.models import read_model_config
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, ConfigError
from components.evaluation.metrics import metric_values
from components.schema import METRICS_FILE
from components.teachers.external import EXTERNAL, ExternalConfig, ExternalTeacher, load_external
from pipelines.config import MAX_OVERLAP, RunConfig
from pipelines.overlap import Overlap, compare_artifact
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


def check_pretrained(config: RunConfig, name: str, folder: Path, prepared: PreparedSet) -> Overlap:
    """What the pre-trained artifact in `folder` knows of the run's own items; teacher `name` may start from it.

    Raises:
        ArtifactError: it is damaged or of another kind.
        DataError: it learnt from too many of the run's own items.
    """
    verify(folder)
    kind, expected = read_model_config(folder).kind, config.teachers[name].kind
    if kind != expected:
        raise ArtifactError(f"teachers.{name}.pretrained: {folder} holds a {kind}, expected a {expected}")
    overlap = compare_artifact(prepared, folder)
    limit = config.pretrain.max_overlap if config.pretrain else MAX_OVERLAP
    overlap.check(limit, f"{folder} knows what this run is tested on; pre-train without those domains")
    return overlap


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


def read_external(name: str, arguments: Mapping[str, Any], prepared: PreparedSet) -> tuple[ExternalTeacher, float]:
    """The arrays of the external teacher `name`, and its strength: given, or measured on validation histories.

    Raises:
        DataError: see `load_external`.
        ConfigError: its strength is neither given nor measurable: the states cover no validation histories.
    """
    config = ExternalConfig.model_validate(arguments)
    arrays, strength = load_external(config, prepared), config.strength
    if strength is None and arrays.valid_states is not None:
        targets = prepared.sequences.cases("valid").targets
        scores = arrays.valid_states @ arrays.items[1:].T  # (C, N)
        chosen = scores[np.arange(len(targets)), targets - 1]
        strength = float(metric_values((scores >= chosen[:, None]).sum(axis=1), METRIC).mean())
    if strength is None:
        raise ConfigError(
            f"teachers.{name}.strength: missing, and {config.states} holds no states of the validation "
            "histories to measure it; give the teacher's validation NDCG@10, or a file keyed by user_id and position"
        )
    return arrays, strength
