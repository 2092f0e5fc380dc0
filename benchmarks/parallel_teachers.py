"""Three teachers tuned together on two nodes, against the sum of their lone times; and how many CPUs they ever hold.

    python -m benchmarks.parallel_teachers --rounds 3 --json FILE

Two nodes with two logical CPUs each are simulated on this machine by Ray's own cluster for tests. The teachers
(UniSRec, UniM2Rec, a small Recformer) read the synthetic world, with few items and epochs. Each asks for one CPU. Wall
time: run it on a quiet machine; with two cores, three teachers can at best take half of the sum.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.contest import ONE_THREAD
from benchmarks.peers.table import console, spread_text, write
from benchmarks.two_workers import Silence

SMALL = {"dim": 64, "num_experts": 4, "max_length": 20}
EPOCHS = {"epochs": 20, "patience": None}  # long enough that starting is a small part
TEACHERS: dict[str, dict[str, Any]] = {
    "unisrec": {"kind": "unisrec", **SMALL, "training": EPOCHS},
    "unim2rec": {"kind": "unim2rec", **SMALL, "training": EPOCHS},
    "recformer": {
        "kind": "recformer",
        "num_layers": 1,
        "max_tokens": 64,
        "max_length": 4,
        "training": {"epochs": 3, "validate_every": 3, "patience": None},
    },
}
CONFIG: dict[str, Any] = {
    "name": "parallel",
    "input": {
        "interactions": "gear/interactions.csv",
        "items": "gear/items.csv",
        "images": "gear/images",
        "text_columns": ["title", "category", "brand"],
    },
    "features": {"max_tokens": 24},
    "images": {"encoder": "descriptors"},
    "teachers": TEACHERS,
}
NODES, CPUS = 2, 2


@contextmanager
def cluster() -> Iterator[None]:
    """Two nodes on this machine, joined."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS, "include_dashboard": False})
    for _ in range(NODES - 1):
        made.add_node(num_cpus=CPUS)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
        made.shutdown()


class Meter:
    """The most CPUs that were taken at any time, by sampling."""

    def __init__(self) -> None:
        self.most = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        import ray

        while not self._done.wait(0.1):
            free: float = ray.available_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
            self.most = max(self.most, NODES * CPUS - free)


def tune(config: Any, run: Path, name: str) -> float:
    """Seconds from asking for a teacher to having it."""
    from pipelines.train_bridge import run_training
    from pipelines.training_job import TrainingJob

    teacher = config.teachers[name]
    folder = Path(tempfile.mkdtemp(dir=run))
    (folder / "artifact").mkdir()
    job = TrainingJob(
        kind=teacher.kind,
        family="teacher",
        arguments=teacher.arguments,
        training=teacher.training,
        seed=0,
        prepared=run / "prepare",
        features=run / "features",
        folder=folder / "artifact",
        work=folder / "work",
    )
    began = time.perf_counter()
    run_training(job, config.cluster_of(name), Silence())
    return time.perf_counter() - began


def measure(config: Any, run: Path, rounds: int) -> dict[str, Any]:
    """Alternating: each teacher alone, then all together."""
    alone: dict[str, list[float]] = {name: [] for name in TEACHERS}
    together: list[float] = []
    most = 0.0
    with ThreadPoolExecutor(len(TEACHERS)) as pool:  # as many workers as later import their libraries once
        list(pool.map(lambda name: tune(config, run, name), TEACHERS))
    for number in range(rounds):
        for name, seconds in alone.items():
            seconds.append(tune(config, run, name))
        began = time.perf_counter()
        with Meter() as meter, ThreadPoolExecutor(len(TEACHERS)) as pool:
            list(pool.map(lambda name: tune(config, run, name), TEACHERS))
        together.append(time.perf_counter() - began)
        most = max(most, meter.most)
        console().print(
            f"round {number + 1}: alone {sum(s[-1] for s in alone.values()):.1f} s, together {together[-1]:.1f} s"
        )
    ratios = sorted(whole / sum(each[i] for each in alone.values()) for i, whole in enumerate(together))
    spread = {"min": ratios[0], "median": ratios[len(ratios) // 2], "max": ratios[-1]}
    return {"alone_s": alone, "together_s": together, "ratio": spread, "most_cpus": most, "asked_cpus": len(TEACHERS)}


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--users", type=int, default=600)
    made.add_argument("--items", type=int, default=300)
    made.add_argument("--json", type=Path, default=None, help="write everything that was measured to this file")
    options = made.parse_args(arguments)
    os.environ.update({**ONE_THREAD, "RAY_AUTH_MODE": "disabled"})
    import yaml

    from components.data.synthetic import write_world
    from pipelines.driver import execute_run
    from pipelines.load_config import load_config

    with tempfile.TemporaryDirectory(prefix="dr") as name:
        folder = Path(name)
        write_world(folder / "world", num_users=options.users, num_items=options.items, domains=("gear",))
        file = folder / "parallel.yaml"
        content = {**CONFIG, "data": str(folder / "world"), "output": str(folder / "runs")}
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        config = load_config(file)
        with cluster():
            execute_run(config, "features")
            measured = measure(config, config.folder.absolute(), options.rounds)
    console().print(
        f"together / sum of lone times: {spread_text(measured['ratio'])}; "
        f"CPUs held at most {measured['most_cpus']:g} of {measured['asked_cpus']} asked for"
    )
    write(measured, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
