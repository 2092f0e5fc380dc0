"""Targets per second of two data-parallel workers on two cores against one worker on one core, at the same global work.

    python -m benchmarks.two_workers --json FILE             gloo workers, pinned, rounds interleaved
    python -m benchmarks.two_workers --through ray           the whole Ray bridge, one job after the other

The same global batch (128 windows) is shared by the workers; gradients are summed in one flat all-reduce. Wall time:
run it on a quiet machine with at least two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.environments import OURS
from benchmarks.peers.contest import CACHE, Contender, Result, compete, document
from benchmarks.peers.dataset import HELD_OUT, NeutralSet, read_neutral, write_neutral
from benchmarks.peers.table import console, logs, number, parser, show, spread_text, write
from benchmarks.training_speed import SIZES

ONE, TWO = "one worker", "two workers"


def through_gloo(options: argparse.Namespace, data: Path, settings: dict[str, Any], cores: list[int]) -> list[Result]:
    """Two groups of processes, driven round by round."""
    users = int((read_neutral(data).lengths - HELD_OUT >= 2).sum())
    steps = options.steps or -(-users // settings["batch"])
    sides = [
        Contender(TWO, "data_parallel", OURS, {**settings, "workers": 2, "cores": cores, "core": cores[0]}, steps),
        Contender(ONE, "data_parallel", OURS, {**settings, "workers": 1, "core": cores[0]}, steps, against=TWO),
    ]
    return compete(sides, options.rounds, logs("two-workers"), console().print)


def through_ray(options: argparse.Namespace, data: Path, settings: dict[str, Any]) -> list[Result]:
    """Training jobs on a local Ray session, alternating; a job's rate leaves out the start of its workers."""
    from pipelines.config import ClusterConfig
    from pipelines.ray_session import ray_session

    results = [
        Result(Contender(TWO, "-", OURS, {"workers": 2}, 0)),
        Result(Contender(ONE, "-", OURS, {"workers": 1}, 0, against=TWO)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        prepared = write_prepared(read_neutral(data), Path(folder) / "prepared")
        with ray_session(ClusterConfig(num_cpus=4)):
            for _ in range(options.rounds):
                for result in results:
                    result.rounds.append(ray_job(prepared, Path(folder), settings, result.contender.options["workers"]))
                    console().print(f"{result.contender.name}: {number(result.rounds[-1]['wall_s'])} s")
    return results


def ray_job(prepared: Path, folder: Path, settings: dict[str, Any], workers: int) -> dict[str, Any]:
    """One training job through `pipelines.train_bridge`; its units and seconds are those of its epochs."""
    from components.training.config import TrainingConfig
    from pipelines.config import ClusterConfig
    from pipelines.train_bridge import run_training
    from pipelines.training_job import TrainingJob

    epochs = settings["epochs"]
    names = {"dim": "dim", "layers": "num_layers", "heads": "num_heads", "inner": "inner_dim", "dropout": "dropout"}
    arguments = {name: settings[key] for key, name in names.items()} | {"max_length": settings["length"], "norm": "pre"}
    training = TrainingConfig(epochs=epochs, batch_size=settings["batch"], patience=None, validate_every=epochs)
    output = Path(tempfile.mkdtemp(dir=folder))
    (output / "artifact").mkdir()
    (output / "work").mkdir()
    job = TrainingJob(
        kind="sasrec",
        family="student",
        arguments=arguments,
        training=training,
        seed=settings["seed"],
        prepared=prepared,
        folder=output / "artifact",
        work=output / "work",
    )
    began = time.perf_counter()
    timing = run_training(job, ClusterConfig(num_cpus=4, num_workers=workers), Silence())
    whole = time.perf_counter() - began
    seconds = timing["train_seconds_per_epoch"] * epochs
    return {
        "units": timing["targets_per_second"] * seconds,
        "wall_s": seconds,
        "whole_job_s": whole,
        "peak_mb": timing["peak_memory_mb"],
        "work_peak_mb": timing["peak_memory_mb"],
    }


class Silence:
    """A progress line that nobody reads."""

    def start(self, total: int | None, unit: str, done: int = 0) -> None: ...

    def advance(self, n: int = 1, **shown: float | str) -> None: ...

    def note(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...


def write_prepared(neutral: NeutralSet, folder: Path) -> Path:
    """The neutral set as a prepared set on disk."""
    import numpy as np
    import polars as pl

    from components.schema import ITEMS_FILE, MANIFEST_FILE, SCHEMA_VERSION, SEQUENCES_FOLDER

    (folder / SEQUENCES_FOLDER).mkdir(parents=True)
    counts = neutral.training_counts()[1:]
    numbers = np.arange(1, neutral.num_items + 1, dtype=np.int32)
    pl.DataFrame({"item": numbers, "item_id": [str(number) for number in numbers], "count": counts}).write_parquet(
        folder / ITEMS_FILE
    )
    lengths = neutral.lengths.astype(np.int32)
    lists = [neutral.sequence(user).astype(np.int32) for user in range(neutral.num_users)]
    pl.DataFrame(
        {
            "user": np.arange(1, neutral.num_users + 1, dtype=np.int32),
            "user_id": [str(user) for user in range(1, neutral.num_users + 1)],
            "items": pl.Series(lists, dtype=pl.List(pl.Int32)),
            "timestamps": pl.Series([None] * neutral.num_users, dtype=pl.List(pl.Int64)),
            "ratings": pl.Series([None] * neutral.num_users, dtype=pl.List(pl.Float32)),
            "train_end": lengths - HELD_OUT,
            "valid_end": lengths - 1,
        }
    ).write_parquet(folder / SEQUENCES_FOLDER / "part-0.parquet")
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema_version": SCHEMA_VERSION}), encoding="utf-8")
    return folder


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--length", type=int, default=50)
    made.add_argument("--steps", type=int, default=None, help="steps per round; default: one epoch")
    made.add_argument("--through", choices=("gloo", "ray"), default="gloo")
    made.add_argument("--epochs", type=int, default=4, help="epochs of a job through Ray")
    options = made.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        made.error(f"two cores are needed, this process may use {len(cores)}")
    data = write_neutral(options.data / "ml1m-multimodal", CACHE / "ml1m.npz")
    settings = {
        **SIZES,
        "task": "train",
        "data": str(data),
        "length": options.length,
        "seed": options.seed,
        "epochs": options.epochs,
        "through": options.through,
    }
    if options.through == "gloo":
        results = through_gloo(options, data, settings, cores)
    else:
        results = through_ray(options, data, settings)
    measured = document("two_workers", settings, results, clock="wall_s")
    show(measured, f"SASRec on MovieLens-1M, length {options.length}, through {options.through}")
    gain = measured["ours_over_theirs"].get(ONE)
    if gain:
        console().print(f"two workers reach {spread_text(gain['rate'])} times the rate of one")
    write(measured, options.json)
    return 0 if gain else 1


if __name__ == "__main__":
    sys.exit(main())
