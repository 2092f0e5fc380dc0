"""A finished run ranked twice, with seen items left out and with them: is a gain more than one protocol's?

    python -m benchmarks.quality runs/scientific --json FILE
    python -m benchmarks.quality runs/scientific --against prm-kd

Every student of the run, means over its seeds, against the plain student (or another) by a paired t-test over users
whose metric is first averaged over seeds. Teachers are ranked too.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from components.artifacts.models import load_model
from components.data.prepared import PreparedSet
from components.errors import UnknownNameError
from components.evaluation.metrics import metric_values
from components.evaluation.ranking import target_positions
from components.evaluation.significance import paired_test, seed_mean

METRICS = ("ndcg@10", "recall@10")
BASELINE = "plain"
TEACHER_SEED = re.compile(r"-s\d+$")  # how `benchmarks.teachers` names a teacher's seeds


def find_models(run: Path) -> dict[str, list[Path]]:
    """Folders of every model by its name in the leaderboard, one per seed."""
    found: dict[str, list[Path]] = {}
    for config in sorted([*run.glob("distill/*/seed-*/config.json"), *run.glob("teach/*/config.json")]):
        folder = config.parent
        name = folder.parent.name if folder.name.startswith("seed-") else TEACHER_SEED.sub("", folder.name)
        found.setdefault(name, []).append(folder)
    return found


def rank(run: Path, part: str, mask: bool) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Per model and metric the (users,) values, averaged over seeds."""
    cases = PreparedSet(run / "prepare").sequences.cases("valid" if part == "valid" else "test")
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, folders in find_models(run).items():
        positions = [target_positions(load_model(folder), cases, mask_history=mask) for folder in folders]
        values[name] = {m: seed_mean([metric_values(found, m) for found in positions]) for m in METRICS}
    return values


def compare(values: dict[str, dict[str, NDArray[np.float64]]], against: str = BASELINE) -> list[dict[str, Any]]:
    """One row per model: means, relative gain in the first metric over the model `against`, and its p-value.

    Raises:
        UnknownNameError: the run has no such model.
    """
    if against not in values:
        raise UnknownNameError("model of this run", against, values)
    base = values[against]
    rows = []
    for name, own in values.items():
        row: dict[str, Any] = {"name": name} | {metric: float(own[metric].mean()) for metric in METRICS}
        if name != against:
            row["gain"] = row[METRICS[0]] / float(base[METRICS[0]].mean()) - 1
            row["p_value"] = float(paired_test(own[METRICS[0]], base[METRICS[0]]))
        rows.append(row)
    return sorted(rows, key=lambda row: -row[METRICS[0]])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--part", choices=["valid", "test"], default="test")
    parser.add_argument(
        "--against", default=BASELINE, help=f"the model that others are compared with; default: {BASELINE}"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    document = {}
    for protocol, mask in (("seen items left out", True), ("seen items ranked too", False)):
        rows = document[protocol] = compare(rank(options.run, options.part, mask), options.against)
        table = Table(
            "model", *METRICS, f"against {options.against}", "p", title=f"{options.run}, {options.part}, {protocol}"
        )
        for row in rows:
            gain = (f"{row['gain']:+.1%}", f"{row['p_value']:.2g}") if "gain" in row else ("", "")
            table.add_row(row["name"], *(f"{row[metric]:.4f}" for metric in METRICS), *gain)
        Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
