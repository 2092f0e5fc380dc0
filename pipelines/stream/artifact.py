"""What a finished stream leaves: its model, which can go on learning while it serves, and what it is judged by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from components.artifacts.format import read_json, write_json
from components.data.ratings import RATINGS_FILE
from components.schema import CONFIG_FILE, ITEMS_FILE, METRICS_FILE, MODEL_FILE, USERS_FILE
from components.streaming import STREAM_KIND
from pipelines.stream.job import Streamed, StreamJob

USER_METRICS_FILE: Final = "test-users.safetensors"


def write_artifact(streamed: Streamed, job: StreamJob, folder: Path) -> None:
    """Write the model with the ids of its users and items, and its metrics."""
    learner = streamed.learner
    tensors = {name: one.contiguous() for name, one in learner.tensors().items()}
    save_file(tensors, folder / MODEL_FILE)
    write_json(folder / CONFIG_FILE, {"kind": STREAM_KIND, **learner.state()})
    metrics = {"method": job.method, "task": job.config.task, **streamed.measures.summary(), "memory": learner.memory()}
    write_json(folder / METRICS_FILE, metrics)
    save_file({"users": streamed.measures.user_means()}, folder / USER_METRICS_FILE)
    for name in (USERS_FILE, ITEMS_FILE, RATINGS_FILE):
        shutil.copyfile(job.prepared / name, folder / name)


def read_metrics(folder: Path) -> dict[str, Any]:
    """What `write_artifact` wrote of the metrics."""
    return read_json(folder / METRICS_FILE)
