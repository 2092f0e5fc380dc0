"""Two students of one data set side by side: quality by a paired test, bytes as they are shipped, time of a request.

    python -m benchmarks.headline runs/search/distill/plain runs/scientific-small/distill/prm-kd --json FILE

Each argument is a folder with one artifact per seed (``seed-0``, ``seed-1``, …), or an artifact. NDCG@10 and Recall@10
of all test users, metrics of a user averaged over seeds, paired t-test over users; seen items are left out unless
`--seen`. Requests of batch 1 go through the scorer of the endpoint, one thread, model after model, round after round;
the ratio of medians is taken per round.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.contest import machine, spread
from benchmarks.peers.table import console, number
from components.artifacts.models import load_model, read_model_config
from components.data.prepared import PreparedSet
from components.evaluation.efficiency import artifact_bytes, request_latency
from components.evaluation.metrics import metric_values
from components.evaluation.ranking import target_positions
from components.evaluation.significance import paired_test, relative_gain, seed_mean

METRICS = ("ndcg@10", "recall@10")


def artifacts(folder: Path) -> list[Path]:
    """The artifacts of all seeds."""
    found = sorted(path.parent for path in folder.glob("seed-*/config.json"))
    return found or [folder]


def measure(first: Path, second: Path, *, seen: bool, rounds: int, requests: int) -> dict[str, Any]:
    """Everything about both, and the second over the first."""
    run = next(parent for parent in first.absolute().parents if (parent / "prepare").is_dir())
    prepared = PreparedSet(run / "prepare")
    cases = prepared.sequences.cases("test")
    values, sides = [], []
    for folder in (first, second):
        models = [load_model(path) for path in artifacts(folder)]
        positions = [target_positions(model, cases, mask_history=not seen) for model in models]
        values.append({name: seed_mean([metric_values(found, name) for found in positions]) for name in METRICS})
        sides.append((models[0], artifacts(folder)))
    latencies: list[list[float]] = [[], []]
    for number_of_round in range(rounds):
        for place, (model, _) in enumerate(sides):
            found = request_latency(model, cases, requests=requests, seed=number_of_round)
            latencies[place].append(found["p50"])
    described = [
        {
            "folder": str(folder),
            "kind": read_model_config(paths[0]).kind,
            "seeds": len(paths),
            "metrics": {name: float(mine[name].mean()) for name in METRICS},
            "bytes": artifact_bytes(paths[0]),
            "latency_ms": spread(times),
        }
        for folder, (_, paths), mine, times in zip((first, second), sides, values, latencies, strict=True)
    ]
    plain, small = values
    return {
        "machine": machine(),
        "sides": described,
        "gain": {name: relative_gain(small[name], plain[name]) for name in METRICS},
        "p_value": {name: paired_test(small[name], plain[name]) for name in METRICS},
        "smaller": described[0]["bytes"] / described[1]["bytes"],
        "faster": spread([one / other for one, other in zip(*latencies, strict=True)]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("first", type=Path, help="what the other is compared with")
    made.add_argument("second", type=Path)
    made.add_argument("--seen", action="store_true", help="rank seen items, too")
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--requests", type=int, default=300)
    made.add_argument("--json", type=Path, default=None)
    options = made.parse_args(arguments)
    found = measure(options.first, options.second, seen=options.seen, rounds=options.rounds, requests=options.requests)
    for side in found["sides"]:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in side["metrics"].items())
        name = f"{side['folder']} ({side['kind']}, {side['seeds']} seeds)"
        console().print(
            f"{name}: {metrics}, {side['bytes']:,} bytes, {side['latency_ms']['median']:.3f} ms", markup=False
        )
    gains = ", ".join(f"{name} {100 * found['gain'][name]:+.1f} % (p {found['p_value'][name]:.2g})" for name in METRICS)
    faster = found["faster"]
    console().print(
        f"the second over the first: {gains}, {found['smaller']:.1f} x smaller, {number(faster['median'])} x as fast "
        f"({number(faster['min'])} to {number(faster['max'])})"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
