"""Preparation, side by side in one run: one plain polars process, our fast path, our Ray path, and peers if at hand.

    python -m benchmarks.prepare --rows 2000000
    python -m benchmarks.prepare --rows 20000000 --skip-fast
    python -m benchmarks.environments rectools replay && python -m benchmarks.prepare --rows 2000000 --peers --skip-ray

A peer does its own preparation, which is less: it drops no duplicates, filters nothing, splits nothing and writes
nothing. Every contender runs in a process of its own on the same Parquet log. Wall and CPU time exclude imports and
Ray's start; the peak is the largest resident set (private and shared pages) of any single process of the contender's
tree, beside it the peak without pages shared with other processes. Our output is compared with polars' row for row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.environments import ROOT, is_ready, python_of

PEERS = ("rectools", "replay")
MIN_COUNT = 5


def main() -> None:
    arguments = parse_arguments()
    if arguments.contender:
        run_contender(arguments)
        return
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="bench"))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"log-{arguments.rows}.parquet"
    if not log.exists():
        write_log(log, arguments.rows)
    names = ["polars", *([] if arguments.skip_fast else ["fast"]), *([] if arguments.skip_ray else ["ray"])]
    results = {name: launch(sys.executable, name, folder, log) for name in names}
    if arguments.peers:
        results |= {name: launch(str(python_of(name)), name, folder, log) for name in ready_peers()}
    report(arguments.rows, results)


def ready_peers() -> list[str]:
    """The peers whose environment is there; the others are named with the command that installs them."""
    ready = [name for name in PEERS if is_ready(name)]
    for name in set(PEERS) - set(ready):
        print(f"{name} is left out: python -m benchmarks.environments {name} installs it", file=sys.stderr)
    return ready


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", help="keeps the log between runs")
    parser.add_argument("--peers", action="store_true", help="beside RecTools and RePlay, where they are installed")
    parser.add_argument("--skip-fast", action="store_true")
    parser.add_argument("--skip-ray", action="store_true")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--log", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_log(path: Path, rows: int) -> None:
    """A log with Zipf popularity and long-tailed activity: about 100 interactions per user."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(1)
    users, items = rows // 100, max(rows // 200, 1000)
    activity = generator.lognormal(0, 1, users)
    user = generator.choice(users, rows, p=activity / activity.sum())
    weight = 1 / np.arange(1, items + 1) ** 0.9
    item = generator.choice(items, rows, p=weight / weight.sum())
    times = 1_500_000_000 + generator.integers(0, 100_000_000, rows)
    table = pa.table({"user_id": user, "item_id": item, "timestamp": times})
    pq.write_table(table, path, row_group_size=1 << 20)


# One contender in its own process


def run_contender(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.folder)
    prepare, finish = CONTENDERS[arguments.contender](Path(arguments.log), folder / arguments.contender)
    watch = Watch(os.getpid())
    wall = time.perf_counter()
    prepare()
    wall = time.perf_counter() - wall
    finish()
    print(json.dumps({"wall_s": wall, **watch.stop()}))


class Watch:
    """CPU seconds and peak memory of a process and all its descendants, sampled from /proc."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._peak = {"rss": 0, "private": 0}
        self._cpu: dict[int, int] = {}
        self._sample()
        self._before = sum(self._cpu.values())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)  # a contender that fails must end
        self._thread.start()

    def stop(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        return {
            "cpu_s": (sum(self._cpu.values()) - self._before) / os.sysconf("SC_CLK_TCK"),
            "peak_process_gb": self._peak["rss"] / 2**30,
            "peak_private_gb": self._peak["private"] / 2**30,
        }

    def _loop(self) -> None:
        while not self._done.wait(0.1):
            self._sample()
        self._sample()

    def _sample(self) -> None:
        for pid, fields in self._tree().items():
            try:
                resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
            except OSError:  # it ended meanwhile
                continue
            self._cpu[pid] = int(fields[11]) + int(fields[12])
            page = os.sysconf("SC_PAGE_SIZE")
            self._peak["rss"] = max(self._peak["rss"], resident * page)
            self._peak["private"] = max(self._peak["private"], (resident - shared) * page)

    def _tree(self) -> dict[int, list[str]]:
        """The fields of /proc/PID/stat after the name, for the root and its descendants."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
        family, size = {self._root}, 0
        while len(family) != size:
            size = len(family)
            family |= {pid for pid, fields in found.items() if int(fields[1]) in family}
        return {pid: found[pid] for pid in family if pid in found}


Contender = Callable[[Path, Path], tuple[Callable[[], object], Callable[[], object]]]


def polars_reference(log: Path, out: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same work as a plain script: duplicates, 5-core, numbers by training frequency, sequences, splits."""
    import polars as pl

    def prepare() -> None:
        rows = pl.scan_parquet(log).with_columns(pl.col("user_id", "item_id").cast(pl.String)).with_row_index("row")
        rows = rows.unique(["user_id", "item_id", "timestamp"], keep="first").collect(engine="streaming")
        height = -1
        while rows.height != height:
            height = rows.height
            for name in ("user_id", "item_id"):
                rows = rows.join(rows.group_by(name).len().filter(pl.col("len") >= MIN_COUNT), on=name, how="semi")
        rows = rows.sort("user_id", "timestamp", "row")
        training = rows.filter(pl.int_range(pl.len()).over("user_id") < pl.len().over("user_id") - 2)
        counts = rows.select(pl.col("item_id").unique()).join(
            training.group_by("item_id").len("count"), on="item_id", how="left"
        )
        items = counts.with_columns(pl.col("count").fill_null(0)).sort("count", "item_id", descending=[True, False])
        items = items.with_row_index("item", offset=1).with_columns(pl.col("item").cast(pl.Int32))
        sequences = (
            rows.join(items.select("item", "item_id"), on="item_id", maintain_order="left")
            .group_by("user_id", maintain_order=True)
            .agg(pl.col("item").alias("items"), pl.col("timestamp").alias("timestamps"))
            .with_columns((pl.col("items").list.len().cast(pl.Int32) - cut).alias(name) for name, cut in ENDS)
        )
        out.mkdir(exist_ok=True)
        items.write_parquet(out / "items.parquet")
        sequences.write_parquet(out / "sequences.parquet")

    return prepare, lambda: None


ENDS = (("train_end", 2), ("valid_end", 1))


class Silent:
    """Progress that nobody watches."""

    def start(self, total: int | None, unit: str, done: int = 0) -> None: ...
    def advance(self, n: int = 1, **shown: float | str) -> None: ...
    def note(self, text: str) -> None:
        if os.environ.get("VERBOSE"):
            print(f"{time.perf_counter():.2f} {text}", file=sys.stderr)

    say = note


def ours(log: Path, out: Path, fast: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    import shutil

    import pandas  # noqa: F401 - pyarrow imports it at its first conversion; imports are not timed

    from components.data.cleaning import PrepareConfig
    from components.data.readers import InputConfig
    from pipelines.prepare import prepare

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    config = PrepareConfig(fast_path_rows=10**12 if fast else 0)
    source = InputConfig(interactions=log.name)
    return lambda: prepare(str(log.parent), source, config, out, Silent()), lambda: compare(out)


def fast_path(log: Path, out: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    return ours(log, out, fast=True)


def ray_path(log: Path, out: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    os.environ.update(
        RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1", POLARS_MAX_THREADS="1", RAY_USAGE_STATS_ENABLED="0"
    )
    import ray

    ray.init(
        num_cpus=int(os.environ.get("BENCH_CPUS", "2")),
        include_dashboard=False,
        object_store_memory=3 * 2**30,
        _temp_dir=tempfile.mkdtemp(prefix="r"),
        log_to_driver=False,
    )
    return ours(log, out, fast=False)


def compare(out: Path) -> None:
    """Row for row against what the polars contender left."""
    import polars as pl

    columns = ["user_id", "items", "timestamps", "train_end", "valid_end"]
    expected = pl.read_parquet(out.parent / "polars" / "sequences.parquet").select(columns).sort("user_id")
    got = pl.read_parquet(out / "sequences" / "*.parquet").select(columns).sort("user_id")
    if not got.equals(expected.cast({"timestamps": pl.List(pl.Int64)})):
        raise SystemExit(f"{out.name}: the output differs from the polars reference")
    print(f"{out.name}: {got.height:,} users equal to the polars reference", file=sys.stderr)


def rectools(log: Path, out: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """RecTools: its Dataset, and the sequences as its transformer models prepare them."""
    import pandas as pd
    from rectools.dataset import Dataset
    from rectools.models.nn.transformers.sasrec import SASRecDataPreparator

    def prepare() -> None:
        frame = pd.read_parquet(log)
        frame.columns = ["user_id", "item_id", "datetime"]
        frame["datetime"] = pd.to_datetime(frame["datetime"], unit="s")
        frame["weight"] = 1
        dataset = Dataset.construct(frame)
        preparator = SASRecDataPreparator(session_max_len=50, batch_size=128, dataloader_num_workers=0)
        preparator.process_dataset_train(dataset)
        preparator.get_dataloader_train()

    return prepare, lambda: None


def replay(log: Path, out: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """RePlay: its Dataset and its SequenceTokenizer."""
    import pandas as pd
    from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureSource, FeatureType
    from replay.data.nn import SequenceTokenizer, TensorFeatureInfo, TensorFeatureSource, TensorSchema

    def prepare() -> None:
        schema = FeatureSchema(
            [
                FeatureInfo("user_id", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
                FeatureInfo("item_id", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
                FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
            ]
        )
        source = TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")
        tensor = TensorFeatureInfo("item_id", FeatureType.CATEGORICAL, True, FeatureHint.ITEM_ID, [source])
        dataset = Dataset(feature_schema=schema, interactions=pd.read_parquet(log))
        SequenceTokenizer(TensorSchema([tensor])).fit_transform(dataset)

    return prepare, lambda: None


CONTENDERS: dict[str, Contender] = {
    "polars": polars_reference,
    "fast": fast_path,
    "ray": ray_path,
    "rectools": rectools,
    "replay": replay,
}


# The table


def launch(python: str, name: str, folder: Path, log: Path) -> dict[str, float]:
    command = [python, "-m", "benchmarks.prepare", "--contender", name, "--folder", str(folder), "--log", str(log)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=False, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def report(rows: int, results: dict[str, dict[str, float]]) -> None:
    base = results["polars"]
    print(f"{rows:,} rows\n{'':10} {'wall s':>8} {'CPU s':>8} {'x wall':>7} {'x CPU':>7} {'peak GB':>8} {'private':>8}")
    for name, result in results.items():
        result["wall_ratio"] = result["wall_s"] / base["wall_s"]
        result["cpu_ratio"] = result["cpu_s"] / base["cpu_s"]
        print(
            f"{name:10} {result['wall_s']:8.2f} {result['cpu_s']:8.2f} {result['wall_ratio']:7.2f} "
            f"{result['cpu_ratio']:7.2f} {result['peak_process_gb']:8.2f} {result['peak_private_gb']:8.2f}"
        )
    print(json.dumps({"rows": rows, "results": results}))


if __name__ == "__main__":
    main()
