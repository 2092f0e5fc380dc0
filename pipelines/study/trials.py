"""What a trial of a study does on a worker, and what it leaves: an artifact, and where it ranks every test user's item.

Folders appear whole or not at all and are sealed by a manifest, as those of the run's nodes are (`pipelines.cache`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.artifacts.format import write_json
from components.artifacts.models import load_model
from components.data.prepared import PreparedSet
from components.evaluation.metrics import Ties, mean_metrics
from components.evaluation.ranking import device_of, target_positions
from components.inference import one_thread
from components.schema import USER
from components.training.loop import World
from components.training.observer import Observer, Place
from pipelines.cache import (
    make_partial,
    publish,
    read_stored,
    recover,
    storage_errors,
    work_folder,
    write_atomically,
    write_manifest,
)
from pipelines.failures import failure
from pipelines.study.plan import Trial
from pipelines.training_job import TrainingJob

STUDY_FOLDER: Final = "study"
RANKS_FILE: Final = "ranks.parquet"
RANK_METRICS_FILE: Final = "test_metrics.json"
LEFT_OUT: Final = "seen items left out"
RANKED_TOO: Final = "seen items ranked too"
PROTOCOLS: Final = {LEFT_OUT: True, RANKED_TOO: False}  # by name: does the ranking leave out the history's items?
Positions = Mapping[str, NDArray[np.int64]]  # (C,) by protocol


def trial_folder(run: Path, trial: Trial) -> Path:
    """Where a trial writes."""
    return run / STUDY_FOLDER / "trials" / trial.key[:16]


def trial_timing_file(run: Path, trial: Trial) -> Path:
    """Seconds and rates of a trial; outside its folder, because no manifest may depend on a clock."""
    return run / STUDY_FOLDER / "timing" / f"{trial.key[:16]}.json"


def is_done(run: Path, trial: Trial) -> bool:
    """Whether the trial's folder is there, whole and under its key."""
    stored = read_stored(trial_folder(run, trial))
    return stored is not None and not stored.damage and stored.key == trial.key


def rank_both(folder: Path, prepared: Path, ties: Ties, device: str | None = None) -> dict[str, NDArray[np.int64]]:
    """(C,) positions of the test users' items among all items, by protocol.

    Args:
        folder: a model artifact.
        prepared: the prepared set.
        ties: do items that score like the target stand before it?
        device: where the model runs; None leaves it where it was loaded.
    """
    cases, model = PreparedSet(prepared).sequences.cases("test"), load_model(folder)
    with one_thread():
        return {
            name: target_positions(model, cases, mask_history=mask, ties=ties, device=device or device_of(model))
            for name, mask in PROTOCOLS.items()
        }


def write_ranks(file: Path, prepared: Path, positions: Positions) -> None:
    """Write one row per test user: the user and the item's position by protocol."""
    users = PreparedSet(prepared).sequences.cases("test").users
    columns = {name: found.astype(np.int32) for name, found in positions.items()}
    pq.write_table(pa.table({USER: users, **columns}), file, compression="zstd")


def read_ranks(file: Path) -> dict[str, NDArray[np.int64]]:
    """What `write_ranks` wrote, by protocol."""
    table = pq.read_table(file)
    return {name: table[name].to_numpy().astype(np.int64) for name in PROTOCOLS}


@dataclass(frozen=True)
class TrialWork:
    """A trial on its way to a worker.

    Attributes:
        trial: what is trained.
        run: the run folder, absolute: workers have another current folder.
        mask_history: whether validation leaves the history's items out.
        ties: how equal scores rank.
        threads: computing threads.
    """

    trial: Trial
    run: Path
    mask_history: bool
    ties: Ties
    threads: int = 1

    def attempt(self, world: World, observer: Observer) -> str:
        """Train, rank and publish; returns why it failed, ``""`` where it did not."""
        try:
            with storage_errors(self.run):
                self._train_and_rank(world, observer)
        except Exception as error:  # noqa: BLE001 - one trial's failure stops no other
            return str(failure(f"{STUDY_FOLDER}/{self.trial.key[:16]}", error, self.run))
        return ""

    def _train_and_rank(self, world: World, observer: Observer) -> None:
        trial, folder = self.trial, trial_folder(self.run, self.trial)
        recover(folder)
        if is_done(self.run, trial):
            return  # a killed attempt had sealed it
        partial = make_partial(folder)
        work = work_folder(self.run, trial.node, trial.key)
        timing = self._job(partial, work).run(world, observer)
        self._rank(partial, str(world.device))
        write_manifest(partial, trial.node, trial.key, trial.inputs)
        self._write_timing(timing)
        publish(partial, folder)
        shutil.rmtree(work.parent, ignore_errors=True)

    def _job(self, folder: Path, work: Path) -> TrainingJob:
        setting = self.trial.setting
        return TrainingJob(
            kind=setting.kind,
            family="baseline" if setting.counts else "student",
            arguments=setting.arguments,
            training=setting.training,
            seed=self.trial.seed,
            folder=folder,
            work=work,
            mask_history=self.mask_history,
            threads=self.threads,
            prepared=self.run / ("annotate" if setting.distillation else "prepare"),
            distillation=setting.distillation,
            start=self.trial.start,
            start_items=False,  # of another catalog: that ids look alike says nothing
        )

    def _rank(self, folder: Path, device: str) -> None:
        prepared = self.run / "prepare"
        positions = rank_both(folder, prepared, self.ties, device)
        write_ranks(folder / RANKS_FILE, prepared, positions)
        write_json(folder / RANK_METRICS_FILE, {name: mean_metrics(found) for name, found in positions.items()})

    def _write_timing(self, timing: dict[str, Any]) -> None:
        file = trial_timing_file(self.run, self.trial)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(timing, indent=2, sort_keys=True))


@dataclass(frozen=True)
class TeacherWork:
    """A teacher to rank; heavy ones take minutes, so each is ranked once per digest of its artifact.

    Attributes:
        name: the teacher's.
        file: where its ranks go.
        run: the run folder, absolute.
        ties: how equal scores rank.
    """

    name: str
    file: Path
    run: Path
    ties: Ties

    def attempt(self, world: World, observer: Observer) -> str:
        """Rank it; returns why that failed, ``""`` where it did not."""
        try:
            with storage_errors(self.run):
                observer.begin(Place(epochs=1, epoch=0, step=0, targets=1, done=0))
                prepared = self.run / "prepare"
                self.file.parent.mkdir(parents=True, exist_ok=True)
                partial = self.file.with_name(f".{self.file.name}.new")
                positions = rank_both(self.run / "teach" / self.name, prepared, self.ties, str(world.device))
                write_ranks(partial, prepared, positions)
                partial.replace(self.file)
                observer.step(1, 1)
        except Exception as error:  # noqa: BLE001 - one teacher's failure stops no other
            return str(failure(f"{STUDY_FOLDER}/teacher-{self.name}", error, self.run))
        return ""


def teacher_ranks_file(run: Path, name: str, digest: str, ties: Ties, prepared: str) -> Path:
    """Where a teacher's ranks lie.

    Args:
        run: the run folder.
        name: the teacher's.
        digest: manifest digest of its artifact.
        ties: how equal scores rank.
        prepared: manifest digest of the prepared set.
    """
    return run / STUDY_FOLDER / "teachers" / f"{name}-{digest[:12]}-{prepared[:8]}-{ties}.parquet"
