"""What an endpoint does at twice its capacity: who is answered, how late, and whether memory grows.

    python -m benchmarks.serving.overload RUN --seconds 300 --json FILE

First a closed loop finds the capacity, then an open loop at a quarter of it the unloaded latency, then an open loop at
twice the capacity lasts for `--seconds`. The load generator runs on the same machine and takes its part of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.contest import machine
from benchmarks.peers.table import console, number, write
from benchmarks.serving.endpoints import ROUTE, bodies, started
from benchmarks.serving.load import MAX_SECONDS, Load
from benchmarks.serving.processes import MemoryWatch
from components.recommender import Recommender
from pipelines.served import find_artifact

ALLOWED: Final = {"200", "429"}
WANTED: Final = {"p99": 3.0, "growth": 0.05}
UNLOADED: Final = 0.25  # of the capacity


def measure(run: Path, options: Any) -> dict[str, Any]:
    """Capacity, unloaded latency and the overload itself."""
    artifact = find_artifact(run)
    asked = bodies(Recommender(artifact).item_ids)
    with started(artifact, replicas=options.replicas) as address:
        url = f"{address}{ROUTE}"
        Load(url, asked, 32, options.calm_seconds).run()  # warm-up
        capacity = Load(url, asked, 32, options.calm_seconds, client="sockets").run()
        unloaded = Load(url, asked, options.connections, options.calm_seconds, rate=UNLOADED * capacity.rate).run()
        with MemoryWatch() as memory:
            rate = options.factor * capacity.rate
            overloaded = Load(url, asked, options.connections, options.seconds, rate=rate).run()
        after = Load(url, asked, 1, 1.0, client="sockets").run()
    return {
        "capacity": capacity.as_dict(),
        "unloaded": unloaded.as_dict(),
        "overloaded": overloaded.as_dict(),
        "after": after.as_dict(),
        "offered": overloaded.requests / overloaded.seconds / capacity.rate,
        "p99_ratio": overloaded.p99_ms / unloaded.p99_ms,
        "growth": memory.growth,
        "peak_mb": memory.peak_mb,
    }


def misses(found: dict[str, Any]) -> list[str]:
    """What was wanted and not reached."""
    told = []
    if other := {key: count for key, count in found["overloaded"]["statuses"].items() if key not in ALLOWED}:
        told.append(f"answers other than 200 and 429: {other}")
    if found["p99_ratio"] > WANTED["p99"]:
        told.append(f"p99 of accepted requests is {found['p99_ratio']:.1f} x unloaded, wanted {WANTED['p99']:g}")
    if found["growth"] > WANTED["growth"]:
        told.append(f"memory grew by {found['growth']:.1%}, wanted {WANTED['growth']:.0%}")
    if found["after"]["success"] < 1:
        told.append(f"the next good requests were answered {found['after']['statuses']}")
    return told


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", type=Path, help="a run, or the folder of an artifact")
    made.add_argument("--seconds", type=float, default=float(MAX_SECONDS), help="of the overload")
    made.add_argument("--calm-seconds", type=float, default=10.0, help="of each measurement before it")
    made.add_argument("--factor", type=float, default=2.0, help="offered load over capacity")
    made.add_argument("--connections", type=int, default=1000, help="most requests that wait at once")
    made.add_argument("--replicas", type=int, default=1)
    made.add_argument("--json", type=Path, default=None)
    options = made.parse_args(arguments)
    where, screen = machine(), console()
    found = measure(options.run, options)
    for name in ("capacity", "unloaded", "overloaded"):
        each = found[name]
        screen.print(
            f"{name:>10}: {number(each['rate'])} good answers/s, p50 {number(each['p50_ms'])} ms, "
            f"p99 {number(each['p99_ms'])} ms, {each['statuses']}",
            markup=False,
        )
    screen.print(
        f"offered {found['offered']:.2f} x capacity; p99 {found['p99_ratio']:.2f} x unloaded; memory "
        f"{found['growth']:+.1%}, peak {number(found['peak_mb'])} MB; load {where['load_at_start']} at the start",
        markup=False,
    )
    problems = misses(found)
    for problem in problems:
        screen.print(f"missed: {problem}", markup=False)
    write({"machine": where, **found, "missed": problems}, options.json)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
