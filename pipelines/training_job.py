"""One model to train, described by paths, and the function that a worker calls with it; knows nothing of Ray."""

from __future__ import annotations

import json
import resource
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from components.artifacts.models import Family, load_model, registry_of, round_to_stored, save_model
from components.data.batching import Batch, TrainingBatches
from components.data.flat_sequences import EvaluationCases
from components.data.prepared import PreparedSet
from components.distillation.config import DistillationConfig
from components.distillation.distiller import Distiller
from components.distillation.teacher_scores import TeacherCache
from components.errors import ArtifactError
from components.evaluation.validation import validation_metric
from components.model import Catalog, Phase, Ranker
from components.schema import ITEM_ID, ITEMS_FILE, METRICS_FILE, MODEL_FILE
from components.students.warm_start import warm_start
from components.training.config import TrainingConfig
from components.training.loop import History, Trainer, World
from components.training.observer import Observer
from components.training.seeds import seed_everything

METRIC = "ndcg@10"
TEACHERS_FILE = "teachers.json"


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What a worker needs to train one model; subclasses say on what.

    Attributes:
        kind: name in the registry of its family.
        family: student, teacher or baseline.
        arguments: arguments of the model.
        training: how it is trained.
        seed: source of all randomness.
        folder: where rank 0 writes the finished artifact.
        work: where checkpoints lie; survives a kill.
        mask_history: whether validation leaves the history's items out.
        threads: computing threads of a worker.
    """

    kind: str
    family: Family
    arguments: Mapping[str, Any]
    training: TrainingConfig
    seed: int
    folder: Path
    work: Path
    mask_history: bool = False
    threads: int = 1

    @abstractmethod
    def run(self, world: World, observer: Observer | None = None) -> dict[str, float]:
        """Train as one worker of `world`; rank 0 writes the artifact.

        Returns:
            Seconds per epoch, targets per second and peak memory, which no manifest may hold.
        """

    def trainer(
        self,
        model: nn.Module,
        batches: TrainingBatches,
        objective: Callable[[Batch], Tensor],
        validate: Callable[[], float] | None,
        world: World,
        observer: Observer | None,
        phases: Sequence[Phase] = (Phase(),),
    ) -> Trainer:
        """What trains `model` as the job says; it goes on from the job's last checkpoint."""
        return Trainer(
            model,
            batches,
            self.training,
            objective=objective,
            validate=validate,
            folder=self.work,
            world=world,
            observer=observer,
            metric=METRIC,
            phases=phases,
        )

    def validation(self, model: Ranker, cases: EvaluationCases) -> Callable[[], float]:
        """Gives the metric that training maximizes: how well `model` ranks the targets of `cases`."""
        users, masked = self.training.validation_users, self.mask_history
        return lambda: validation_metric(model, cases, METRIC, max_users=users, mask_history=masked)


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job):
    """One model to train on a prepared set.

    Attributes:
        prepared: a prepared set; an annotated one where the model is distilled.
        features: folder with ``text.npy`` and perhaps ``image.npy``, for models that read content.
        pretrained: artifact of the pre-trained model to start from.
        distillation: how it is distilled; None trains it alone.
        start: artifact of a trained student to begin with.
        start_items: whether items that both know by their ids begin with its vectors, too.
    """

    prepared: Path
    features: Path | None = None
    pretrained: Path | None = None
    distillation: DistillationConfig | None = None
    start: Path | None = None
    start_items: bool = True

    def run(self, world: World, observer: Observer | None = None, data: PreparedSet | None = None) -> dict[str, float]:
        """See `Job.run`; `data` is the set at `prepared` where it is in memory already."""
        return train(self, world, observer, data)


@dataclass(frozen=True)
class Built:
    """A model and what it was built from."""

    model: Ranker
    catalog: Catalog
    prepared: PreparedSet
    extra: dict[str, Any] = field(default_factory=dict)


def train(
    job: TrainingJob, world: World, observer: Observer | None = None, data: PreparedSet | None = None
) -> dict[str, float]:
    """Train the job's model as one worker of `world`; rank 0 writes the artifact.

    Returns:
        Seconds per epoch, targets per second and peak memory, which no manifest may hold.
    """
    torch.set_num_threads(job.threads)
    built = build(job, data)
    model = built.model.to(world.device)
    batches = model.training_batches(built.prepared.sequences, job.training.batch_size, job.training.windows, job.seed)
    validate = job.validation(model, built.prepared.sequences.cases("valid"))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return finish(job, model, built.catalog, History(), validate(), world)
    objective: Callable[[Batch], Tensor] = model.loss
    distiller = _distiller(job, built, batches)
    if distiller:
        objective = distiller
    history = job.trainer(model, batches, objective, validate, world, observer, model.phases()).fit()
    report = distiller.report() if distiller else None
    valid, before = history.best, {}
    if round_to_stored(model, job.arguments):
        before, valid = {f"valid_{METRIC}_unrounded": valid}, validate()
    return finish(job, model, built.catalog, history, valid, world, report, before)


def build(job: TrainingJob, data: PreparedSet | None = None) -> Built:
    """Read the data, unless it is given, and build the model from the job's seed."""
    prepared, spec = data or PreparedSet(job.prepared), registry_of(job.family)[job.kind]
    catalog = Catalog(
        num_items=prepared.num_items,
        num_users=len(prepared.sequences),
        counts=prepared.counts,
        sequences=prepared.sequences,
        features={} if spec.reads_attributes else _features(job.features),
        attributes=prepared.attributes if spec.reads_attributes else None,
        user_attributes=prepared.user_attributes if spec.reads_attributes else None,
    )
    seed_everything(job.seed)
    model = spec.make(catalog, job.arguments)
    if job.pretrained is not None:
        load = getattr(model, "load_pretrained", None)
        if load is None:
            raise TypeError(f"{job.kind} cannot start from pre-trained weights")
        load(load_file(job.pretrained / MODEL_FILE))
    if job.start is not None:
        known = item_rows(job.start, prepared) if job.start_items else np.zeros(prepared.num_items, np.int64)
        warm_start(model, load_model(job.start), known)
    return Built(model, catalog, prepared)


def item_rows(start: Path, prepared: PreparedSet) -> NDArray[np.int64]:
    """(N,) number of each item in the artifact `start`, 0 where that does not know it.

    Raises:
        ArtifactError: which items the artifact knows is not to be found.
    """
    known = {item_id: number for number, item_id in enumerate(artifact_item_ids(start), start=1)}
    return np.array([known.get(item_id, 0) for item_id in prepared.item_ids], np.int64)


def artifact_item_ids(folder: Path) -> list[str]:
    """The items of a student's artifact: its own table, or that of the run in which it was trained.

    Raises:
        ArtifactError: there is neither.
    """
    places = [folder, *(parent / "prepare" for parent in folder.absolute().parents)]
    for place in places:
        if (place / ITEMS_FILE).is_file():
            ids: list[str] = pq.read_table(place / ITEMS_FILE, columns=[ITEM_ID])[ITEM_ID].to_pylist()
            return ids
    raise ArtifactError(f"{folder}: has no {ITEMS_FILE}, and is in no run; give a folder such as runs/NAME/export")


def _features(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    files = {name: folder / f"{name}.npy" for name in ("text", "image")}
    return {name: np.load(file, allow_pickle=False) for name, file in files.items() if file.is_file()}


def _distiller(job: TrainingJob, built: Built, batches: TrainingBatches) -> Distiller | None:
    """The objective that also follows the teachers whose states the prepared set carries."""
    config = job.distillation
    if config is None:
        return None
    known = {entry["name"]: entry for entry in json.loads((job.prepared / TEACHERS_FILE).read_text())["teachers"]}
    names = list(known) if config.teachers is None else config.teachers
    cache = TeacherCache(
        states=[torch.from_numpy(built.prepared.states(name)) for name in names],
        items=[torch.from_numpy(np.load(teacher_items(job.prepared, name), allow_pickle=False)) for name in names],
        temperatures=[config.temperatures.get(name, config.temperature) for name in names],
        reading=config.reading,
        normalization=config.normalization,
    )
    strengths = [known[name]["strength"] for name in names]
    table = registry_of(job.family)[job.kind].item_embedding
    distiller = Distiller(built.model, cache, names, strengths, config, table and table(built.model))
    plan = batches.epoch(0)[: config.calibration_batches]
    distiller.calibrate([batches.batch(windows) for windows in plan])
    return distiller


def teacher_items(annotated: Path, name: str) -> Path:
    """Where an annotated set keeps a teacher's item vectors."""
    return annotated / "teachers" / name / "items.npy"


def finish(
    job: Job,
    model: Ranker,
    catalog: Catalog,
    history: History,
    valid: float,
    world: World,
    distillation: dict[str, Any] | None = None,
    more: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Write the artifact (rank 0), `more` among its metrics, and return the figures that depend on the clock."""
    if world.rank == 0:
        model = model.to("cpu").eval()
        save_model(model, job.folder, kind=job.kind, family=job.family, arguments=job.arguments, catalog=catalog)
        metrics = {f"valid_{METRIC}": valid, "best_epoch": history.best_epoch, "epochs": len(history.epochs)}
        metrics |= more or {}
        _write(job.folder / METRICS_FILE, metrics)
        if history.epochs:
            _write(job.folder / "history.json", {"epochs": history.epochs})
        if distillation:
            _write(job.folder / "distillation.json", distillation)
    return _timing(history)


def _timing(history: History) -> dict[str, float]:
    seconds = sum(history.seconds_per_epoch)
    rows = history.epochs[-len(history.seconds_per_epoch) :] if history.seconds_per_epoch else []
    timing = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if seconds > 0:
        timing["train_seconds_per_epoch"] = seconds / len(rows)
        timing["targets_per_second"] = sum(row["targets"] for row in rows) / seconds
    return timing


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
