"""A finished stream of seconds, as `distilrec stream` leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.artifacts.format import seal
from components.embedding_size.config import StreamModelConfig
from pipelines.stream.artifact import write_artifact
from pipelines.stream.job import StreamJob, stream
from tests.pipelines.stream.logs import rating_lines
from tests.pipelines.test_prepare_ratings import prepared


def finished_stream(folder: Path, method: Any = "esapn", **options: Any) -> Path:
    prepared_folder, _ = prepared(folder / "log", rating_lines(600)) if mkdir(folder / "log") else (folder, {})
    given = {"batch_size": 40, "max_frequency": 64, "bn_mode": "group", **options}
    job = StreamJob(method, StreamModelConfig.model_validate(given), 0, prepared_folder, 0.2)
    streamed = stream(job, folder / "work", lambda total, done: None, lambda count, loss, accuracy: None)
    artifact = mkdir(folder / "artifact")
    write_artifact(streamed, job, artifact)
    seal(artifact, {})
    return artifact


def mkdir(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
