"""Latency at batch 1 over HTTP of compressed models beside the dense exact fp32 one, at 500,000 items.

    python -m benchmarks.serving.large_catalog --sides narrow compressed tied --json FILE

The models are those of `benchmarks.large_catalog` (speed only: nothing is learnt), written as artifacts and served side
by side in one session, one replica each. One client asks one after another, side by side, round by round. The last of
`--sides` is what the others stand beside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from rich.table import Table

from benchmarks.large_catalog import SIDES, contenders
from benchmarks.peers.contest import machine
from benchmarks.peers.large_catalog import make_popular, zipf_sequences
from benchmarks.peers.table import console, spread_text, write
from benchmarks.serving.endpoints import ROUTE, add_application, bodies, started
from benchmarks.serving.load import Load
from benchmarks.serving.throughput import spread
from components.artifacts.format import seal, write_json
from components.artifacts.models import save_model
from components.compression.heads import TreeHead
from components.data.batching import history_batch
from components.model import Catalog
from components.schema import COUNT, ITEM, ITEM_ID, ITEMS_FILE, METRICS_FILE
from components.students import STUDENTS

WANTED: Final = 5.0
SHAPED: Final = 20  # histories whose states give an untrained tree the shape of a trained one


def write_artifact(folder: Path, side: Any) -> Path:
    """The untrained model of one side as an artifact that serves."""
    settings: dict[str, Any] = side.options
    folder.mkdir(parents=True)
    torch.manual_seed(settings["seed"])
    sequences = zipf_sequences(settings["users"], settings["items"], settings["length"] + 2, settings["seed"])
    counts = np.bincount(sequences.items, minlength=settings["items"] + 1)
    catalog = Catalog(settings["items"], settings["users"], counts)
    model = STUDENTS[settings["student"]].make(catalog, settings["arguments"]).eval()
    if isinstance(model.head, TreeHead):
        cases = sequences.cases("test")
        batches = [history_batch([cases.history(case).tolist()], model.max_length) for case in range(SHAPED)]
        with torch.inference_mode():
            make_popular(model, torch.cat([model.states(batch) for batch in batches]))
    kind = settings["student"]
    save_model(model, folder, kind=kind, family="student", arguments=settings["arguments"], catalog=catalog)
    numbers = np.arange(1, settings["items"] + 1, dtype=np.int32)
    table = pl.DataFrame({ITEM: numbers, ITEM_ID: numbers, COUNT: counts[1:]})
    table.with_columns(pl.col(ITEM_ID).cast(pl.String)).write_parquet(folder / ITEMS_FILE)
    write_json(folder / METRICS_FILE, {})
    seal(folder, {"model": {"name": side.name}})
    return folder


def measure(folder: Path, options: Any) -> dict[str, list[dict[str, Any]]]:
    """Interleaved rounds of one client on every side, after one that is not counted."""
    artifacts = {side.name: write_artifact(folder / side.name, side) for side in contenders(options, "answer")}
    asked = bodies(
        [str(number) for number in range(1, options.items + 1)], count=50, longest=options.length, k=options.k
    )
    (first, artifact), *others = artifacts.items()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in artifacts}
    with started(artifact) as address:
        urls = {first: f"{address}{ROUTE}"}
        for name, artifact in others:
            urls[name] = f"{address}{add_application(artifact, name)}{ROUTE}"
        for number in range(options.rounds + 1):
            for name, url in urls.items():
                result = Load(url, asked, connections=1, seconds=options.seconds).run()
                if result.success < 1:
                    raise RuntimeError(f"{name}: answers other than 200: {result.statuses}")
                if number:
                    found[name].append(result.as_dict())
    return found


def ratios(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """How many times as long the last side takes, at the median request, round by round."""
    *others, dense = found
    return {
        name: spread([slow["p50_ms"] / fast["p50_ms"] for fast, slow in zip(found[name], found[dense], strict=True)])
        for name in others
    }


def options_of(arguments: list[str] | None) -> Any:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--sides", choices=SIDES, nargs="*", default=["narrow", "compressed", "tied"])
    made.add_argument("--items", type=int, default=500_000)
    made.add_argument("--dim", type=int, default=512)
    made.add_argument("--length", type=int, default=50)
    made.add_argument("--repeats", type=int, default=1, help="of NextItNet's two blocks")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--seconds", type=float, default=10.0, help="of one load")
    made.add_argument("-k", type=int, default=20)
    made.add_argument("--json", type=Path, default=None)
    made.set_defaults(users=2000, batch=1, seed=0, core=0, steps=0, requests=0)
    return made.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options, where = options_of(arguments), machine()
    with tempfile.TemporaryDirectory(prefix="large-catalog-") as folder:
        found = measure(Path(folder), options)
    compared = ratios(found)
    table = Table(title=f"{options.items:,} items, width {options.dim}, one client")
    for column in ("model", "p50 ms", "p99 ms", "times as fast"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, each in found.items():
        row = [spread_text(spread([one[key] for one in each])) for key in ("p50_ms", "p99_ms")]
        table.add_row(name, *row, spread_text(compared.get(name)))
    screen = console()
    screen.print(table)
    screen.print(f"{where['cpu']}, load {where['load_at_start']} at the start; wanted {WANTED:g}", markup=False)
    write({"machine": where, "rounds": found, "times_as_fast": compared}, options.json)
    return int(max(each["median"] for each in compared.values()) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
