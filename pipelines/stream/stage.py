"""Stage ``stream``: one method with one seed over the prepared stream of ratings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipelines.stages import SEED_MARK
from pipelines.stream.artifact import write_artifact
from pipelines.stream.job import StreamJob, stream

if TYPE_CHECKING:
    from pipelines.stages import StageContext


def run(context: StageContext) -> None:
    """Stream, measure, and leave an artifact that can serve.

    Raises:
        DataError: there is nothing to stream.
        ArtifactError: a checkpoint is damaged.
    """
    config = context.config.stream_section
    method = next(one for one in config.methods if one == context.name.split(SEED_MARK)[0])
    prepared = context.input("prepare")
    job = StreamJob(method, config.model(), context.seed, prepared, config.test_fraction, config.checkpoint_seconds)
    progress, started, done = context.progress, time.perf_counter(), 0

    def after(count: int, loss: float, accuracy: float) -> None:
        nonlocal done
        done += count
        progress.advance(count, loss=loss, accuracy=accuracy)

    streamed = stream(job, context.work, lambda total, before: progress.start(total, "ratings", before), after)
    context.timing["ratings_per_second"] = done / max(time.perf_counter() - started, 1e-9)
    write_artifact(streamed, job, context.folder)
