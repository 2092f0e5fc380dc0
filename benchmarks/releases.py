"""Releases on a live endpoint under load: hundreds of swaps, and candidates with a fault.

    python -m benchmarks.releases runs/movielens --json FILE
    python -m benchmarks.releases runs/movielens --swaps 20 --connections 2

Swaps: two versions of a line take turns, each time as soon as every replica serves the one before; no request may fail.
Faults: a candidate that is slow, ranks nothing after some items, is untrained, of another catalog, or damaged on the
disk is deployed with the bounds that `distilrec deploy` has by default (shorter steps); it must be rejected or rolled
back, within the given time, and no request may fail. The control, the same model again, must go all the way.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.peers import faulty
from benchmarks.peers.contest import machine
from benchmarks.peers.table import console
from benchmarks.serving.endpoints import ROUTE, bodies
from benchmarks.serving.load import MAX_SECONDS, Load, LoadResult, Meanwhile
from components.errors import ArtifactError
from components.recommender import Recommender
from pipelines.served import find_artifact
from pipelines.serving.endpoint import endpoint
from pipelines.serving.releases import Deployed, deploy
from serve.release.line import Line
from serve.release.policy import Policy
from serve.settings import Settings

POLICY = Policy(step_seconds=3.0, watch_seconds=3.0, max_wait_seconds=60.0)


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def swap(line: Line, count: int, patience: float = 60.0) -> list[float]:
    """Let two versions take turns; seconds until every replica serves the new one."""
    versions, taken = [release.version for release in line.registry.releases(line.name)][:2], []
    for number in range(count):
        wanted, started = versions[(number + 1) % 2], time.monotonic()
        line.registry.promote(line.name, wanted)
        while {report.serving for report in line.reports()} != {wanted}:
            if time.monotonic() - started > patience:
                raise SystemExit(f"{wanted} does not serve after {patience:.0f} s")
            time.sleep(0.02)
        taken.append(time.monotonic() - started)
    return taken


def try_candidate(artifact: Path, line: Line) -> dict[str, Any]:
    """Deploy, and see what becomes of it."""
    started = time.monotonic()
    try:
        done = deploy(artifact, line.folder, POLICY, lambda text: console().print(f"  {text}", style="dim"))
    except ArtifactError as error:
        done = Deployed(str(line.folder), "", "refused", str(error))
    return {"outcome": done.outcome, "reason": done.reason, "seconds": time.monotonic() - started}


def met(result: LoadResult) -> dict[str, Any]:
    """What visitors met; `failed` counts the requests that were not answered with 200."""
    return {"requests": result.requests, "failed": result.requests - result.good, "p99_ms": result.p99_ms}


def arguments_parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", type=Path, help="a run whose export has 32-bit numbers")
    made.add_argument("--swaps", type=int, default=200)
    made.add_argument("--replicas", type=int, default=1)
    made.add_argument("--connections", type=int, default=4)
    made.add_argument("--json", type=Path, default=None, metavar="FILE")
    return made


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it on one endpoint."""
    source, line, port = find_artifact(options.run), Line(folder / "line"), free_port()
    deploy(source, line.folder, POLICY, str)
    line.registry.put(line.name, faulty.same(source, folder / "same"), promote=False)
    candidates = {name: make(source, folder / name.replace(" ", "-")) for name, make in faulty.FAULTS.items()}
    asked, document = bodies(Recommender(source).item_ids), {"machine": machine(), "faults": {}}
    load = Load(f"http://127.0.0.1:{port}{ROUTE}", asked, options.connections, MAX_SECONDS, timeout_s=60.0)
    with endpoint(source, Settings(), "127.0.0.1", port, options.replicas, "auto", line):
        with Meanwhile(load) as visitors:
            seconds = swap(line, options.swaps)
        times = {"count": len(seconds), "median_s": statistics.median(seconds), "max_s": max(seconds)}
        document["swaps"] = {**times, "statuses": visitors.result.statuses, **met(visitors.result)}
        for name, artifact in {**candidates, "none (control)": folder / "same"}.items():
            console().print(f"{name}:")
            with Meanwhile(load) as visitors:
                found = try_candidate(artifact, line)
            document["faults"][name] = found | met(visitors.result)
    return document


def show(document: dict[str, Any]) -> None:
    swaps = document["swaps"]
    console().print(
        f"{swaps['count']} swaps: {swaps['failed']} of {swaps['requests']:,} requests failed; every replica served the "
        f"new version after {swaps['median_s']:.2f} s (median; at most {swaps['max_s']:.2f} s); "
        f"p99 {swaps['p99_ms']:.1f} ms"
    )
    table = Table("fault", "outcome", "after", "why", "requests", "failed", "p99")
    for name, row in document["faults"].items():
        cells = (row["outcome"], f"{row['seconds']:.1f} s", row["reason"], f"{row['requests']:,}", str(row["failed"]))
        table.add_row(name, *cells, f"{row['p99_ms']:.0f} ms")
    console().print(table)


def main(arguments: list[str] | None = None) -> int:
    options = arguments_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="releases-") as folder:
        document = measure(options, Path(folder))
    show(document)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2))
    bad = [
        name for name, row in document["faults"].items() if (row["outcome"] == "released") != name.startswith("none")
    ]
    return 1 if bad or document["swaps"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
