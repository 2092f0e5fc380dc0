"""What a teacher that knows nothing does to the student: consistency weighting against average pooling.

    python -m benchmarks.random_teacher configs/scientific-teachers.yaml --teachers unisrec unisrec-text unim2rec

It goes on in the run of ``benchmarks.teachers`` (same folder; finished teachers are taken from there) and distils
students from the three teachers, and from the first two with random vectors in the third's place: with consistency
weighting, which must find out by itself whom to drop, and with average pooling.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.quality import compare, rank
from benchmarks.teachers import distilrec, make_parser, multiply, read_config
from components.data.prepared import PreparedSet

RANDOM: Final = "random"
WIDTH: Final = 64
METRIC: Final = "ndcg@10"


def write_random(prepared: PreparedSet, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Item vectors and states of norm 1 that mean nothing, as the section of an external teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    counts = {"items": prepared.num_items + 1, "states": prepared.sequences.num_instances}
    for name, rows in counts.items():
        vectors = rng.standard_normal((rows, WIDTH), dtype=np.float32)
        np.save(folder / f"{name}.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return {"kind": "external", **{name: str(folder / f"{name}.npy") for name in counts}}


def with_random(
    run: dict[str, Any], distillation: dict[str, Any], chosen: Sequence[str], random: Any
) -> dict[str, Any]:
    """The run with the students of this experiment; the random teacher claims to be as good as the others."""
    real = list(chosen)
    spoiled = [*real[:-1], RANDOM]
    kept = {key: value for key, value in distillation.items() if key not in ("teachers", "base_weights", "epsilon")}
    return {
        **run,
        "teachers": {name: run["teachers"][name] for name in real} | {RANDOM: {**random, "strength": 0.1}},
        "distillation": {**kept, "teachers": real, "base_weights": "uniform"},
        "variants": {
            "average": {"weights": "average"},
            "without-third": {"teachers": real[:-1]},
            "random-consistency": {"teachers": spoiled},
            "random-always-drop": {"teachers": spoiled, "epsilon": 0.0},
            "random-average": {"teachers": spoiled, "weights": "average"},
        },
    }


def dropped_share(run: Path, variant: str) -> list[float]:
    """Per seed: of the instances that lost a teacher, the part that lost the random one."""
    shares = []
    for file in sorted(run.glob(f"distill/{variant}/seed-*/distillation.json")):
        dropped = json.loads(file.read_text(encoding="utf-8"))["dropped"]
        shares.append(dropped[RANDOM] / max(sum(dropped.values()), 1e-9))
    return shares


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--teachers", nargs=3, required=True, help="the last one is replaced")
    options = parser.parse_args(arguments)
    config = read_config(options)
    run = multiply(config, options.seeds, options.only)
    folder = Path(config.get("output", "runs")) / run["name"]
    random = write_random(PreparedSet(folder / "prepare"), folder.with_name(f"{run['name']}-random"))
    chosen = [f"{name}-s{options.seeds[0]}" for name in options.teachers]
    file = folder.with_name(f"{folder.name}-random.yaml")
    file.write_text(yaml.safe_dump(with_random(run, config["distillation"], chosen, random)), encoding="utf-8")
    distilrec("run", str(file))
    rows = {row["name"]: row for row in compare(rank(folder, "test", True))}
    shares = {name: dropped_share(folder, name) for name in ("random-consistency", "random-always-drop")}
    reference = rows["prm-kd"][METRIC]
    table = Table("student", METRIC, "against prm-kd", "random teacher, of all drops", title=str(folder))
    for name in ("prm-kd", *with_random(run, config["distillation"], chosen, {})["variants"], "plain"):
        share = ", ".join(f"{value:.1%}" for value in shares.get(name, []))
        table.add_row(name, f"{rows[name][METRIC]:.4f}", f"{rows[name][METRIC] / reference - 1:+.1%}", share)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "dropped": shares}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
