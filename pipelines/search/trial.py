"""One student of a search: what it does on a worker, and the record that it leaves.

The record is the search's memory. It is written after every epoch, so that a search that was killed asks the same
students again and each answers from its record: one that is over trains no more, one that was under way goes on from
its checkpoint. Nothing that Ray Tune keeps is read for that.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from components.artifacts.format import read_json
from components.artifacts.models import load_model
from components.data.prepared import PreparedSet
from components.errors import StageError
from components.evaluation.efficiency import request_latency
from components.schema import METRICS_FILE
from components.students import STUDENTS
from components.training.config import TrainingConfig
from components.training.loop import World
from components.training.observer import Place
from pipelines.cache import make_partial, publish, recover, storage_errors, write_atomically
from pipelines.config import COUNTING
from pipelines.failures import failure
from pipelines.footprints import catalog_of
from pipelines.search.candidates import Weight
from pipelines.study.plan import Setting
from pipelines.training_job import METRIC, TrainingJob

RECORD: Final = "record.json"
ARTIFACT: Final = "artifact"
METRIC_ROW: Final = f"valid_{METRIC}"
REQUESTS: Final = 50  # whose latency is measured
State = Literal["running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class Record:
    """What is known of one student of a search.

    Attributes:
        number: from 1, in the order in which they began.
        key: see `pipelines.search.candidates.setting_key`.
        values: what was drawn, by key of the configuration.
        weight: parameters and bytes.
        state: done: trained to its end, it has an artifact; stopped: it fell behind; failed: see `reason`.
        reason: why it failed.
        epochs: best validation NDCG@10 after each epoch.
        metric: validation NDCG@10 of the stored student, of a done one.
        latency_ms: median time of one request.
    """

    number: int
    key: str
    values: Mapping[str, Any]
    weight: Weight
    state: State = "running"
    reason: str = ""
    epochs: list[float] = field(default_factory=list)
    metric: float | None = None
    latency_ms: float | None = None

    @property
    def best(self) -> float:
        """Best validation NDCG@10 that it has reached; that of the stored student once it is done."""
        return self.metric if self.metric is not None else max(self.epochs, default=-1.0)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("done", "stopped")


def write_record(folder: Path, record: Record) -> None:
    """Write it into the student's folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RECORD, json.dumps(asdict(record), indent=2, sort_keys=True))


def read_record(folder: Path) -> Record | None:
    """What `write_record` wrote; None where there is none."""
    if not (folder / RECORD).is_file():
        return None
    content = read_json(folder / RECORD)
    return Record(**{**content, "weight": Weight(**content["weight"])})


def read_records(trials: Path) -> list[Record]:
    """All records of a search, in the order in which the students began."""
    found = [read_record(file.parent) for file in trials.glob(f"*/{RECORD}")]
    return sorted((record for record in found if record is not None), key=lambda record: (record.number, record.key))


def mark(folder: Path, record: Record, state: State, reason: str = "") -> None:
    """Write down how a student ended that could not do so itself: it was stopped, or died."""
    write_record(folder, replace(record, state=state, reason=reason))
    if state == "stopped":
        shutil.rmtree(folder / "work", ignore_errors=True)
    recover(folder / ARTIFACT)


def trial_folder(trials: Path, key: str) -> Path:
    """Where a student's record, checkpoints and artifact lie."""
    return trials / key[:16]


@dataclass(frozen=True)
class SearchTrial:
    """A student on its way to a worker.

    Attributes:
        record: what is known of it.
        setting: what is trained.
        trials: folder of all students, absolute.
        prepared: the prepared or annotated set.
        seed: of its training.
        mask_history: whether validation leaves the history's items out.
        threads: computing threads.
        start: artifact to begin with, absolute.
    """

    record: Record
    setting: Setting
    trials: Path
    prepared: Path
    seed: int
    mask_history: bool
    threads: int = 1
    start: Path | None = None

    @property
    def folder(self) -> Path:
        """Its own folder."""
        return trial_folder(self.trials, self.record.key)

    def attempt(self, world: World, tell: Callable[[Record], None], data: PreparedSet | None = None) -> Record:
        """Train it, or answer from its record; an error is recorded and stops no other student.

        Args:
            world: the worker.
            tell: called after every epoch but the last possible one, also of those that an earlier attempt trained; may
                not return where Tune stops the student.
            data: the set at `prepared`, where it is in memory already.
        """
        known = read_record(self.folder)
        record = self.record if known is None else replace(known, values=self.record.values)
        for epoch in range(min(len(record.epochs), self.setting.training.epochs - 1)):
            tell(replace(record, state="running", epochs=record.epochs[: epoch + 1], metric=None))
        if record.over:
            if record != known:  # it was trained for a search of other keys, which meant the same student
                write_record(self.folder, record)
            return record
        recover(self.folder / ARTIFACT)
        recorder = _Recorder(self.folder, replace(record, state="running", reason=""), tell, self.setting.training)
        try:
            with storage_errors(self.trials):
                finished = self._train(world, recorder, data)
        except Exception as error:  # noqa: BLE001 - one student's failure stops no other
            reason = str(failure(f"search/{self.record.key[:16]}", error, self.trials))
            finished = replace(recorder.record, state="failed", reason=reason)
        write_record(self.folder, finished)
        return finished

    def _train(self, world: World, recorder: _Recorder, data: PreparedSet | None) -> Record:
        data = data or PreparedSet(self.prepared)
        if recorder.record.latency_ms is None:  # the front needs it from the first epoch on
            catalog = catalog_of(data, self.setting.kind)
            untrained = STUDENTS[self.setting.kind].make(catalog, self.setting.arguments)
            recorder.keep(
                latency_ms=request_latency(untrained, data.sequences.cases("valid"), requests=REQUESTS)["p50"]
            )
        artifact, work = self.folder / ARTIFACT, self.folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        partial = make_partial(artifact)
        self._job(partial, work).run(world, recorder, data)
        metric = float(read_json(partial / METRICS_FILE)[METRIC_ROW])
        if not math.isfinite(metric):
            raise StageError(f"its validation {METRIC} is {metric}; lower training.learning_rate")
        model = load_model(partial)
        latency = request_latency(model, data.sequences.cases("valid"), requests=REQUESTS)["p50"]
        publish(partial, artifact)
        recorder.keep(state="done", metric=metric, latency_ms=latency)
        shutil.rmtree(work, ignore_errors=True)  # behind the record: until then the checkpoint is what is known
        return recorder.record

    def _job(self, folder: Path, work: Path) -> TrainingJob:
        return TrainingJob(
            kind=self.setting.kind,
            family="baseline" if self.setting.kind in COUNTING else "student",
            arguments=self.setting.arguments,
            training=self.setting.training,
            seed=self.seed,
            folder=folder,
            work=work,
            mask_history=self.mask_history,
            threads=self.threads,
            prepared=self.prepared,
            distillation=self.setting.distillation,
            start=self.start,
        )


class _Recorder:
    """The loop's observer: writes the record after every epoch, then tells Tune, which may stop it there."""

    def __init__(self, folder: Path, record: Record, tell: Callable[[Record], None], training: TrainingConfig) -> None:
        self._folder, self.record, self._tell, self._last = folder, record, tell, training.epochs
        self.keep()

    def keep(self, **changes: Any) -> None:
        """Write the record with `changes`."""
        self.record = replace(self.record, **changes)
        write_record(self._folder, self.record)

    def begin(self, place: Place) -> None:
        """See `Observer.begin`; epochs behind the last checkpoint are trained, and recorded, again."""
        self.keep(epochs=self.record.epochs[: place.epoch])

    def step(self, epoch: int, targets: int) -> None:
        """See `Observer.step`; who waits is shown epochs."""

    def epoch(self, row: dict[str, float], checkpoint: Path) -> None:
        """See `Observer.epoch`."""
        value = float(row.get(METRIC_ROW, -1.0))
        self.keep(epochs=[*self.record.epochs, max([*self.record.epochs, value])])
        if len(self.record.epochs) < self._last:  # behind the last epoch it is saved and then told as a whole
            self._tell(self.record)
