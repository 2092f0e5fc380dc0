"""One method streams over a prepared log: predict, measure, learn, and go on after a kill where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from components.data.rating_stream import RatingStream
from components.embedding_size.config import Method, StreamModelConfig
from components.embedding_size.learner import StreamLearner
from components.embedding_size.measures import Measures
from components.errors import DataError
from components.training.checkpoints import Checkpoint, read_checkpoint, select, write_checkpoint

CHECKPOINT: Final = "checkpoint"
LEARNER, MEASURES = "learner.", "measures."
AfterBatch = Callable[[int, float, float], None]  # ratings of the batch, its mean loss and its accuracy


@dataclass(frozen=True)
class StreamJob:
    """What streams over what.

    Attributes:
        method: fixed, darts, autoemb or esapn.
        config: arguments of the model.
        seed: of all that is random.
        prepared: the folder of the stream.
        test_fraction: share of the ratings that is judged, at the end.
        checkpoint_seconds: at least so long between two checkpoints.
    """

    method: Method
    config: StreamModelConfig
    seed: int
    prepared: Path
    test_fraction: float
    checkpoint_seconds: float = 30.0

    def open(self) -> RatingStream:
        """The stream.

        Raises:
            DataError: there is none, or it lacks the label.
        """
        return RatingStream(self.prepared, self.config.task)


@dataclass(frozen=True)
class Streamed:
    """What came of it.

    Attributes:
        learner: as it stands behind the last rating.
        measures: of the whole stream.
    """

    learner: StreamLearner
    measures: Measures


def test_start(total: int, fraction: float) -> int:
    """Where the test part begins: at least one rating tests.

    >>> test_start(100, 0.2), test_start(3, 0.2), test_start(1, 0.5)
    (80, 2, 0)
    """
    return total - max(1, round(total * fraction))


test_start.__test__ = False  # type: ignore[attr-defined]


def stream(job: StreamJob, work: Path, begin: Callable[[int, int], None], after: AfterBatch) -> Streamed:
    """Stream over all ratings, from the last checkpoint in `work` on where there is one.

    Args:
        job: what to do.
        work: folder of the checkpoint.
        begin: told how many ratings there are, and how many were done before.
        after: told about every batch, behind its checkpoint if it has one.

    Raises:
        ArtifactError: the checkpoint is damaged or of another configuration.
        DataError: there is no stream.
    """
    ratings = job.open()
    if not len(ratings):
        raise DataError(f"{job.prepared}: the stream holds no rating")
    border = test_start(len(ratings), job.test_fraction)
    learner = StreamLearner(job.method, job.config, job.seed)
    measures = Measures(len(ratings), border)
    _resume(learner, measures, work / CHECKPOINT)
    begin(len(ratings), measures.seen)
    saved = time.monotonic()
    with one_thread():
        for batch in ratings.batches(job.config.batch_size, measures.seen, border):
            if measures.seen == border and job.config.restart_frequencies:
                learner.restart_frequencies()
            columns = (torch.from_numpy(one) for one in (batch.users, batch.items, batch.labels))
            predicted = learner.step(*columns)
            measures.add(predicted)
            if time.monotonic() - saved >= job.checkpoint_seconds:
                save(learner, measures, work / CHECKPOINT)
                saved = time.monotonic()
            after(len(batch), float(predicted.losses.mean()), float(predicted.correct.float().mean()))
    return Streamed(learner, measures)


def save(learner: StreamLearner, measures: Measures, folder: Path) -> None:
    """Write all that a stream needs to go on."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{LEARNER}{name}": one for name, one in learner.tensors().items()}
    tensors |= {f"{MEASURES}{name}": one for name, one in measures.tensors().items()}
    write_checkpoint(Checkpoint(tensors, {"learner": learner.state()}), folder)


def _resume(learner: StreamLearner, measures: Measures, folder: Path) -> None:
    found = read_checkpoint(folder)
    if found is not None:
        learner.restore(select(found.tensors, LEARNER), found.state["learner"])
        measures.restore(select(found.tensors, MEASURES))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: batches are small, and sums then do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
