"""One trial of `distilrec study esapn`: a method on a task with a seed, in a folder that is sealed as a node's is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.embedding_size.config import Method, StreamModelConfig
from components.training.loop import World
from components.training.observer import Observer, Place
from pipelines.cache import (
    make_partial,
    node_key,
    publish,
    read_stored,
    recover,
    storage_errors,
    write_manifest,
)
from pipelines.config import RunConfig
from pipelines.failures import failure
from pipelines.graph import Node
from pipelines.stream.artifact import write_artifact
from pipelines.stream.job import StreamJob, stream

STUDY_FOLDER: Final = "study"


@dataclass(frozen=True)
class StreamTrial:
    """What is run, and where it lies.

    Attributes:
        name: of its row, such as ``esapn`` or the name of a mode.
        method: what streams.
        model: its arguments.
        seed: of all that is random.
        test_fraction: share of the ratings that is judged.
        prepared: digest of the prepared stream.
    """

    name: str
    method: Method
    model: StreamModelConfig
    seed: int
    test_fraction: float
    prepared: str

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name}, {self.model.task}, seed {self.seed}"

    @property
    def node(self) -> Node:
        """The same as a node of a run: two rows that ask for the same thing share it."""
        part = {"stream": {**self.model.model_dump(mode="json"), "test_fraction": self.test_fraction}}
        return Node("stream", f"trial/{self.method}", ("prepare",), {**part, "method": self.method}, self.seed)

    @property
    def key(self) -> str:
        """Identity of what it makes."""
        return node_key(self.node, {"prepare": self.prepared})

    def folder(self, run: Path) -> Path:
        """Where it lies when it is done."""
        return run / STUDY_FOLDER / "streams" / self.key[:16]

    def is_done(self, run: Path) -> bool:
        """Whether it lies there, whole."""
        stored = read_stored(self.folder(run))
        return stored is not None and not stored.damage and stored.key == self.key


def study_trials(config: RunConfig, prepared: str) -> Iterator[StreamTrial]:
    """Every trial of the study: methods, and modes of ESAPN, times tasks, times seeds."""
    section = config.stream_section
    study = section.study
    rows: list[tuple[str, Method, dict[str, Any]]] = [(method, method, {}) for method in study.methods]
    rows += [(name, "esapn", dict(changes)) for name, changes in study.modes.items()]
    for seed in study.seeds or config.seeds:  # seed by seed: a study that is stopped has whole comparisons
        for task in study.tasks:
            for name, method, changes in rows:
                model = section.model(**{**changes, "task": task})
                yield StreamTrial(name, method, model, seed, section.test_fraction, prepared)


@dataclass(frozen=True)
class StreamWork:
    """A trial on its way to a worker.

    Attributes:
        trial: what is run.
        run: the run folder, absolute: workers have another current folder.
        checkpoint_seconds: a killed trial repeats at most so much.
    """

    trial: StreamTrial
    run: Path
    checkpoint_seconds: float

    def attempt(self, world: World, observer: Observer) -> str:
        """Stream, and go on where a killed attempt stopped; returns why it failed, ``""`` where it did not."""
        try:
            with storage_errors(self.run):
                self._stream(observer)
        except Exception as error:  # noqa: BLE001 - one trial's failure stops no other
            return str(failure(f"{STUDY_FOLDER}/{self.trial.key[:16]}", error, self.run))
        return ""

    def _stream(self, observer: Observer) -> None:
        trial, folder = self.trial, self.trial.folder(self.run)
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        if trial.is_done(self.run):
            return  # a killed attempt had sealed it
        job = StreamJob(
            trial.method, trial.model, trial.seed, self.run / "prepare", trial.test_fraction, self.checkpoint_seconds
        )
        work = self._work()

        def begin(total: int, done: int) -> None:
            observer.begin(Place(epochs=1, epoch=0, step=done // trial.model.batch_size, targets=total, done=done))

        streamed = stream(job, work, begin, lambda count, loss, accuracy: observer.step(1, count))
        partial = make_partial(folder)
        write_artifact(streamed, job, partial)
        write_manifest(partial, trial.node, trial.key, {"prepare": trial.prepared})
        publish(partial, folder)
        shutil.rmtree(work, ignore_errors=True)

    def _work(self) -> Path:
        """Several trials of one method run side by side, so each has a folder of its own for checkpoints."""
        work = self.run / STUDY_FOLDER / ".work" / self.trial.key[:16]
        work.mkdir(parents=True, exist_ok=True)
        return work
