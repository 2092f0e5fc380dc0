"""Requests that succeed while one of two replicas is killed again and again; a client sends a failed one once more.

    python -m benchmarks.serving.kills RUN --seconds 120 --every 10 --json FILE

``kill -9`` hits the older one of two replicas. Where a replica has not come back when the next kill is due, that kill
waits for it: there would be nothing left to answer.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from benchmarks.peers.contest import machine
from benchmarks.peers.table import console, number, write
from benchmarks.serving.endpoints import MODEL, ROUTE, bodies, started
from benchmarks.serving.load import Load
from benchmarks.serving.processes import replicas
from components.recommender import Recommender
from pipelines.served import find_artifact

WANTED: Final = 0.999
REPLICAS: Final = 2
POLL_S: Final = 0.2


class Killer(threading.Thread):
    """Kills the oldest replica every `every` seconds while two answer.

    Attributes:
        kills: seconds after the start at which it killed.
    """

    def __init__(self, every: float, seconds: float, is_whole: Any) -> None:
        super().__init__(daemon=True)
        self.kills: list[float] = []
        self._every, self._seconds, self._is_whole = every, seconds, is_whole

    def run(self) -> None:
        """Kill until the time is over."""
        begun = due = time.monotonic()
        while True:
            due = max(due + self._every, time.monotonic())
            while time.monotonic() < due or not self._is_whole():
                if time.monotonic() - begun > self._seconds:
                    return
                time.sleep(POLL_S)
            try:
                replicas(f"{MODEL}:")[0].kill()
            except psutil.NoSuchProcess:
                continue
            self.kills.append(time.monotonic() - begun)


def is_whole() -> bool:
    """Whether Ray Serve holds both replicas for running and both processes live."""
    from ray import serve as ray_serve

    application = ray_serve.status().applications[MODEL]
    deployments = application.deployments.values()
    states = [{str(state): count for state, count in each.replica_states.items()} for each in deployments]
    running = all(each == {"RUNNING": REPLICAS} for each in states)
    return running and len(replicas(f"{MODEL}:")) == REPLICAS


def measure(run: Path, options: Any) -> dict[str, Any]:
    """The same load without and with kills."""
    artifact = find_artifact(run)
    asked = bodies(Recommender(artifact).item_ids)
    with started(artifact, replicas=REPLICAS) as address:
        url = f"{address}{ROUTE}"
        load = Load(url, asked, options.connections, min(10.0, options.seconds), rate=options.rate, retries=1)
        calm = load.run()
        killer = Killer(options.every, options.seconds, is_whole)
        killer.start()
        result = Load(url, asked, options.connections, options.seconds, rate=options.rate, retries=1).run()
        killer.join()
    return {"calm": calm.as_dict(), "killed": result.as_dict(), "kills_at_s": killer.kills}


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", type=Path, help="a run, or the folder of an artifact")
    made.add_argument("--seconds", type=float, default=120.0)
    made.add_argument("--every", type=float, default=10.0, help="seconds between kills")
    made.add_argument("--rate", type=float, default=100.0, help="requests per second")
    made.add_argument("--connections", type=int, default=256, help="most requests that wait at once")
    made.add_argument("--json", type=Path, default=None)
    options = made.parse_args(arguments)
    where, screen = machine(), console()
    found = measure(options.run, options)
    for name in ("calm", "killed"):
        each = found[name]
        screen.print(
            f"{name:>7}: {each['requests']:,} requests, {each['success']:.4%} good, {each['statuses']}, "
            f"{each['retried']} sent again, p99 {number(each['p99_ms'])} ms, slowest {number(each['max_ms'])} ms",
            markup=False,
        )
    screen.print(
        f"{len(found['kills_at_s'])} kills, at {[round(at) for at in found['kills_at_s']]} s; wanted {WANTED:.1%}; "
        f"load {where['load_at_start']} at the start",
        markup=False,
    )
    write({"machine": where, **found}, options.json)
    return int(found["killed"]["success"] < WANTED or not found["kills_at_s"])


if __name__ == "__main__":
    sys.exit(main())
