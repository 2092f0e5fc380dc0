"""What approximate retrieval saves per request, and what it misses: `ApproximateScorer` beside exact search.

    python -m benchmarks.retrieval --json FILE
    python -m benchmarks.retrieval --items 500000 --dim 64 --requests 50

A SASRec with random item vectors (normal, all of one size: the hard case for an index, since nothing is near anything)
ranks random histories for the 10 best items, one request at a time, through the scorers of the endpoint. Both are
asked in turns, on one thread. Times are of the wall clock, and of the processor, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.approximate import ApproximateScorer, drawn_histories
from components.inference import Scorer, one_thread
from components.model import Catalog
from components.students import STUDENTS

K = 10
WARM_UP = 3


def make_scorer(items: int, dim: int) -> Scorer:
    torch.manual_seed(0)
    catalog = Catalog(items, 1, np.zeros(items + 1, np.int64))
    arguments = {"dim": dim, "num_layers": 2, "num_heads": 2, "inner_dim": 2 * dim, "max_length": 50}
    model = STUDENTS["sasrec"].make(catalog, arguments)
    with torch.no_grad():
        model.head.item_embedding.weight.normal_()  # type: ignore[union-attr,operator]
    return Scorer(model, reproducible=True)


def milliseconds(ask: Callable[[], object]) -> tuple[float, float]:
    """Of the wall clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    ask()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)


def measure(items: int, dim: int, requests: int) -> dict[str, Any]:
    """The medians in milliseconds, the seconds to build the index, and recall@10."""
    exact = make_scorer(items, dim)
    started = time.perf_counter()
    approximate = ApproximateScorer(exact)
    built = time.perf_counter() - started
    histories = drawn_histories(np.zeros(items, np.float32), seed=1)[:requests]
    times: dict[str, list[tuple[float, float]]] = {"exact": [], "faiss": []}
    for place, history in enumerate([*histories[:WARM_UP], *histories]):
        for name, scorer in (("exact", exact), ("faiss", approximate)):
            spent = milliseconds(lambda scorer=scorer, history=history: scorer.top_k([history], K))  # type: ignore[misc]
            if place >= WARM_UP:
                times[name].append(spent)
    wall, processor = (
        {name: float(np.median([one[i] for one in spent])) for name, spent in times.items()} for i in (0, 1)
    )
    recall = approximate.measure(histories, "random").recall
    return {
        "items": items,
        "dim": dim,
        "requests": len(histories),
        "p50_ms": {name: round(spent, 2) for name, spent in wall.items()},
        "processor_p50_ms": {name: round(spent, 2) for name, spent in processor.items()},
        "processor_ratio": round(processor["exact"] / processor["faiss"], 1),
        "recall@10": recall,
        "build_seconds": round(built, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="*", default=[500_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    with one_thread():
        for items in options.items:
            rows.append(measure(items, options.dim, options.requests))
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
