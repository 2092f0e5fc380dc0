"""What histories by user id cost: memory and start of the base, reads, durable appends.

    python -m benchmarks.history_store --users 1000000 --seconds 5 [--redis redis://127.0.0.1:6379/9] [--folder DISK]

The base is random: 20 items per user on average, of 500,000. Reads and appends go through the same asynchronous face
that the routes use, first one at a time, then 64 at a time. A plain loop of ``write`` and ``fsync`` of 4 KiB in the
same folder stands beside, as what the disk gives one append after another. The database of ``--redis`` should be an
empty one; what is written there stays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from serve.histories.base import BaseHistories
from serve.histories.histories import Histories
from serve.histories.source import HistorySource
from serve.histories.store import Event

AT_ONCE = 64
MEAN_LENGTH = 20
NUM_ITEMS = 500_000


def random_base(users: int) -> BaseHistories:
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / MEAN_LENGTH, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(1, NUM_ITEMS + 1, offsets[-1], dtype=np.int32)
    return BaseHistories(
        pa.array([f"user-{number}" for number in rng.permutation(users)], pa.large_string()),
        pa.array(np.arange(1, users + 1, dtype=np.int32)),
        pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(items)),
        pa.array([f"item-{number}" for number in range(1, NUM_ITEMS + 1)], pa.large_string()),
        "",
    )


async def measure(act: Callable[[int], Awaitable[Any]], seconds: float, at_once: int) -> dict[str, float]:
    """Milliseconds per call and calls per second, with `at_once` callers."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        while (start := time.perf_counter()) < end:
            await act(number)
            times.append(time.perf_counter() - start)
            number += at_once

    started = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(at_once)))
    took = time.perf_counter() - started
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "per_second": round(len(times) / took)}


def plain_fsync(folder: Path, seconds: float) -> dict[str, float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    with (folder / "plain").open("wb") as file:
        while (start := time.perf_counter()) < end:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "per_second": round(len(times) / sum(times))}


async def measure_store(histories: Histories, users: int, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    chosen = [f"user-{number}" for number in rng.integers(0, users, 100_000)]

    async def read(number: int) -> None:
        await histories.read([chosen[number % len(chosen)]])

    async def append(number: int) -> None:
        await histories.append([Event(chosen[number % len(chosen)], "item-7", time.time_ns() // 1000)])

    calls = {"append": append, "read": read}
    return {f"{name}, {n} at once": await measure(act, seconds, n) for name, act in calls.items() for n in (1, AT_ONCE)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--redis", help="address of an empty database")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one by default")
    arguments = parser.parse_args()
    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    base = random_base(arguments.users)
    built = {"seconds": round(time.perf_counter() - start, 1), "MiB": (process.memory_info().rss - before) >> 20}
    found: dict[str, Any] = {f"base of {arguments.users:,} users, with its making": built}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found["plain fsync"] = plain_fsync(Path(folder), arguments.seconds)
        places = {"none": None, "sqlite": folder, **({"redis": arguments.redis} if arguments.redis else {})}
        for name, place in places.items():
            histories = Histories(base, HistorySource(events=place).open_events())
            if place is None:
                times = []
                for number in range(20_000):
                    start = time.perf_counter()
                    base.find(f"user-{number}", 2000)
                    times.append(time.perf_counter() - start)
                p50, p99 = np.percentile(times, [50, 99]) * 1e3
                found["base alone, read"] = {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}
            else:
                found[name] = asyncio.run(measure_store(histories, arguments.users, arguments.seconds))
            histories.close()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
