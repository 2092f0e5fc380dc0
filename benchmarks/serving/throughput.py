"""Requests per second of ``/v1/recommend`` beside the same route with the model left out, and where the CPU goes.

    python -m benchmarks.serving.throughput RUN --json FILE

Both stand behind one HAProxy in one session of Ray Serve, one replica each, and are loaded in turn, round by round, by
the same closed loop. Where the model is left out, requests are parsed, gathered and rendered all the same; ``/healthz``
shows what is left of a request without that. Parts of the replica's work are timed in this process, alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.peers.contest import machine
from benchmarks.peers.table import console, number, spread_text, write
from benchmarks.serving.endpoints import LEFT_OUT, MODEL, ROUTE, add_left_out, bodies, started
from benchmarks.serving.load import Load, LoadResult
from benchmarks.serving.processes import cpu_seconds
from components.recommender import Query, Recommender
from pipelines.served import find_artifact

WANTED: Final = {"throughput": 0.6, "p99": 2.0}
PART_SECONDS: Final = 1.0  # how long each part is timed


def measure(url: str, application: str, asked: list[bytes], options: Any) -> dict[str, Any]:
    """One load, and the CPU that the endpoint's processes spent on it, in microseconds per request."""
    before = cpu_seconds(application)
    result = Load(url, asked, options.connections, options.seconds).run()
    spent = {part: seconds - before.get(part, 0.0) for part, seconds in cpu_seconds(application).items()}
    _check(result, url)
    return {**result.as_dict(), "cpu_us": {part: 1e6 * seconds / result.good for part, seconds in spent.items()}}


def _check(result: LoadResult, url: str) -> None:
    if result.success < 1:
        raise RuntimeError(f"{url}: answers other than 200: {result.statuses}")


def rounds(run: Path, options: Any) -> dict[str, list[dict[str, Any]]]:
    """Interleaved rounds of both sides, after one that is not counted."""
    artifact = find_artifact(run)
    asked = bodies(Recommender(artifact).item_ids, k=options.k, longest=options.longest)
    found: dict[str, list[dict[str, Any]]] = {MODEL: [], LEFT_OUT: []}
    with started(artifact) as address:
        sides = {MODEL: f"{address}{ROUTE}", LEFT_OUT: f"{address}{add_left_out(artifact)}{ROUTE}"}
        for name, url in sides.items():
            measure(url, name, asked, options)
        for _ in range(options.rounds):
            for name, url in sides.items():
                found[name].append(measure(url, name, asked, options))
    return found


def parts(run: Path, options: Any) -> dict[str, float]:
    """Microseconds per request of the replica's own work, each part alone, in batches of `options.batch`."""
    from serve.backend import as_served
    from serve.routes.recommend import shown
    from serve.schema import RecommendRequest
    from serve.telemetry import Telemetry

    recommender = Recommender(find_artifact(run))
    asked = bodies(recommender.item_ids, count=options.batch, k=options.k, longest=options.longest)
    requests = [RecommendRequest.model_validate_json(body) for body in asked]
    queries = [Query(request.history or [], request.k) for request in requests]
    answers, served, telemetry = recommender.answer(queries), as_served(recommender), Telemetry()
    timed: dict[str, Callable[[], object]] = {
        "parsing": lambda: [RecommendRequest.model_validate_json(body) for body in asked],
        "model": lambda: recommender.answer(queries),
        "model, alone": lambda: [recommender.answer([query]) for query in queries],
        "rendering": lambda: [shown(answer, served, telemetry) for answer in answers],
    }
    return {name: _microseconds(action) / len(asked) for name, action in timed.items()}


def _microseconds(action: Callable[[], object]) -> float:
    """CPU time of one call, the least of many: the rest is the machine's."""
    best, end = float("inf"), time.perf_counter() + PART_SECONDS
    while time.perf_counter() < end:
        started = time.thread_time()
        action()
        best = min(best, time.thread_time() - started)
    return 1e6 * best


def ratios(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """With the model over without, round by round: median, minimum, maximum."""
    pairs = list(zip(found[MODEL], found[LEFT_OUT], strict=True))
    made = {
        "throughput": [one["rate"] / other["rate"] for one, other in pairs],
        "p99": [one["p99_ms"] / other["p99_ms"] for one, other in pairs],
    }
    return {name: spread(values) for name, values in made.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(
    found: dict[str, list[dict[str, Any]]], compared: dict[str, dict[str, float]], times: dict[str, float]
) -> None:
    """Print both tables."""
    screen, table = console(), Table(title="requests per second, closed loop")
    for column in ("side", "requests/s", "p50 ms", "p99 ms", "CPU us: replica", "proxy", "ray"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, each in found.items():
        row = [spread_text(spread([one[key] for one in each])) for key in ("rate", "p50_ms", "p99_ms")]
        row += [
            number(statistics.median(one["cpu_us"].get(part, 0) for one in each))
            for part in ("replica", "proxy", "ray")
        ]
        table.add_row(name, *row)
    screen.print(table)
    for name, values in compared.items():
        screen.print(f"{name}, model over left out: {spread_text(values)} (wanted {WANTED[name]})", markup=False)
    told = ", ".join(f"{name} {number(value)}" for name, value in times.items())
    screen.print(f"microseconds of the replica per request: {told}", markup=False)


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("run", type=Path, help="a run, or the folder of an artifact")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--seconds", type=float, default=8.0, help="of one load")
    made.add_argument("--connections", type=int, default=32)
    made.add_argument("--longest", type=int, default=30, help="items of the longest history")
    made.add_argument("--batch", type=int, default=8, help="queries per batch where parts are timed")
    made.add_argument("-k", type=int, default=10, help="items per answer")
    made.add_argument("--json", type=Path, default=None)
    options = made.parse_args(arguments)
    where = machine()
    found = rounds(options.run, options)
    compared, times = ratios(found), parts(options.run, options)
    show(found, compared, times)
    console().print(f"{where['cpu']}, {where['cores']} cores, load {where['load_at_start']} at the start", markup=False)
    write({"machine": where, "rounds": found, "ratios": compared, "parts_us": times}, options.json)
    return int(compared["throughput"]["median"] < WANTED["throughput"] or compared["p99"]["median"] > WANTED["p99"])


if __name__ == "__main__":
    sys.exit(main())
