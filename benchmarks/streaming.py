"""How many ratings a second a streaming model learns: beside the plain algorithm, and over a stream of millions.

    python -m benchmarks.streaming                          # pairs of rounds, ours and the plain one in turn
    python -m benchmarks.streaming --rows 20000000          # one pass over a synthetic stream whose tastes drift

The plain algorithm is that of the tests: tables of all sizes under a dense Adam, dictionaries, deques, loops over rows
for what is kept. Both take the same batches in one process on one thread; ratios are of neighboring rounds, in CPU
time.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.embedding_size.config import METHODS, StreamModelConfig
from components.embedding_size.learner import StreamLearner
from components.embedding_size.sizes import total_dim
from components.embedding_size.stores import ExactStore, histogram
from tests.components.embedding_size.plain import PlainEsapn

MILLION = 1_000_000


def drifting(rows: int, users: int, items: int, batch: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A stream in which users and items keep coming, frequent ones are few, and tastes turn with time."""
    draw = np.random.default_rng(seed)
    for start in range(0, rows, batch):
        count, now = min(batch, rows - start), (start + batch) / rows
        known = max(2, int(users * now)), max(2, int(items * now))
        chosen = [
            (draw.random(count) ** power * size).astype(np.int64) for power, size in zip((2, 4), known, strict=True)
        ]
        angles = [one * golden for one, golden in zip(chosen, (2.399963, 1.324718), strict=True)]
        scores = np.cos(angles[0] + 3 * now - angles[1]) + draw.normal(0, 0.5, count)
        yield torch.from_numpy(chosen[0]), torch.from_numpy(chosen[1]), torch.from_numpy((scores > 0).astype(np.int64))


def side_by_side(args: argparse.Namespace) -> dict[str, Any]:
    """Rounds of a few batches each, in turn."""
    config = StreamModelConfig(bn_mode=args.bn_mode, batch_size=args.batch)
    rows = args.rounds * args.batches * args.batch
    batches = list(drifting(rows, args.users, args.items, args.batch))
    ours, plain = StreamLearner("esapn", config, 0), PlainEsapn(args.users, args.items, config, 0)
    ours.users.ensure(args.users)  # the plain one's tables are there from the beginning
    ours.items.ensure(args.items)
    rates: list[tuple[float, float]] = []
    for number in range(args.rounds):
        part = batches[number * args.batches : (number + 1) * args.batches]
        counted = sum(len(one[0]) for one in part)
        started = time.process_time()
        for users, items, labels in part:
            ours.step(users, items, labels)
        between = time.process_time()
        for users, items, labels in part:
            plain.step(users.tolist(), items.tolist(), labels)
        rates.append((counted / (between - started), counted / (time.process_time() - between)))
        print(f"round {number + 1}: ours {rates[-1][0]:,.0f}/s, plain {rates[-1][1]:,.0f}/s", flush=True)
    kept = rates[1:] or rates  # the first round warms up
    ratios = [own / other for own, other in kept]
    return {
        "ours_per_second": median(own for own, _ in kept),
        "plain_per_second": median(other for _, other in kept),
        "ratio": median(ratios),
        "ratios": ratios,
    }


def one_pass(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of CPU for every million ratings, and memory."""
    config = StreamModelConfig(bn_mode=args.bn_mode, batch_size=args.batch)
    learner = StreamLearner(args.method, config, 0)
    spent, seen, seconds, right = [], 0, time.process_time(), 0
    every = min(MILLION, max(args.rows // 10, 1))
    for users, items, labels in drifting(args.rows, args.users, args.items, args.batch):
        right += int(learner.step(users, items, labels).correct.sum())
        seen += len(users)
        if seen // every > len(spent):
            now = time.process_time()
            spent.append(now - seconds)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rate = every / spent[-1]
            print(
                f"{seen:,} ratings: {rate:,.0f} per second of CPU, {right / seen:.3f} right, {peak:,.0f} MB", flush=True
            )
            seconds = now
    found = {"per_cpu_second": [every / one for one in spent], "last_to_first": spent[0] / spent[-1]}
    return (
        found
        | {"accuracy": right / seen, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        | _bytes(learner)
    )


def _bytes(learner: StreamLearner) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, side in (("users", learner.users), ("items", learner.items)):
        store = getattr(side, "store", None)
        if isinstance(store, ExactStore):
            found[name] = {
                "entities": store.count,
                "bytes_of_table_2": 4 * total_dim(histogram(store.sizes)),
                "used_bytes": store.used_bytes,
                "held_bytes": store.held_bytes,
                "fixed_bytes": 4 * 128 * store.count,
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="one pass over so many ratings, in place of the comparison")
    parser.add_argument("--method", choices=METHODS, default="esapn")
    parser.add_argument("--bn-mode", choices=("branches", "group", "selected"), default="branches")
    parser.add_argument("--users", type=int, default=138_493)
    parser.add_argument("--items", type=int, default=27_278)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--batches", type=int, default=4, help="of a round")
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(one_pass(args) if args.rows else side_by_side(args), indent=2))


if __name__ == "__main__":
    main()
