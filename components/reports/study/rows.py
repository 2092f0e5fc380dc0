"""From positions to the rows of a study: means over seeds, gains, tests. A row without its trials says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from components.evaluation.leaderboard import Kind
from components.evaluation.metrics import CUTOFFS, metric_values
from components.evaluation.significance import mean_interval, paired_test, relative_gain, seed_mean

FloatArray = NDArray[np.float64]
METRICS: Final = tuple(f"{name}@{cutoff}" for name in ("recall", "ndcg") for cutoff in CUTOFFS)
Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """What is known of the model of one row.

    Attributes:
        name: unique within the table.
        kind: student, teacher or baseline.
        model: what the paper compares it with: a name of `components.reports.study.paper.PAPER_NAMES`, or any other.
        positions: (C,) positions of the test users' items, by seed.
        missing: why other seeds have none.
        against: name of the row that it is compared with.
        group: the part of the table that it stands in.
        value: the value of the parameter that is varied there.
    """

    name: str
    kind: Kind
    model: str
    positions: Mapping[int, NDArray[Any]]
    missing: Mapping[int, str] = field(default_factory=dict)
    against: str | None = None
    group: str = ""
    value: float | None = None


def compare(models: Sequence[Model], metrics: Sequence[str] = METRICS) -> list[Row]:
    """One row per model, in their order, with the means of `metrics`.

    Gain, p-value (paired t-test over users whose metric is first averaged over seeds) and the sign of the difference
    seed by seed compare a row with the one that it names; each is absent where either side has no finished trial.
    """
    known = {model.name: model for model in models}
    return [_row(model, known.get(model.against or ""), metrics) for model in models]


def _row(model: Model, other: Model | None, metrics: Sequence[str]) -> Row:
    row: Row = {
        "name": model.name,
        "kind": model.kind,
        "model": model.model,
        "group": model.group,
        "value": model.value,
        "seeds": sorted(model.positions),
        "missing": {str(seed): reason for seed, reason in sorted(model.missing.items())},
        "metrics": None,
        "against": model.against,
    }
    if not model.positions:
        return row
    values = _per_user(model, metrics)
    row["metrics"] = {name: float(value.mean()) for name, value in values.items()}
    row["std"] = {name: _deviation(model, name) for name in metrics}
    row["interval"] = {name: list(mean_interval(value)) for name, value in values.items()}
    if other and other.positions:
        base = _per_user(other, metrics)
        row["gain"] = {name: relative_gain(value, base[name]) for name, value in values.items()}
        row["p_value"] = {name: paired_test(value, base[name]) for name, value in values.items()}
        row["signs"] = {name: seed_signs(model, other, name) for name in metrics}
    return row


def _per_user(model: Model, metrics: Sequence[str]) -> dict[str, FloatArray]:
    return {name: seed_mean([metric_values(found, name) for found in model.positions.values()]) for name in metrics}


def _deviation(model: Model, metric: str) -> float:
    """Standard deviation over seeds of the mean over users; 0 for one seed."""
    means = [metric_values(found, metric).mean() for found in model.positions.values()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def seed_signs(model: Model, other: Model, metric: str) -> str:
    """Whether the model beats the other with each seed that both have, in the order of seeds.

    >>> good, bad = np.array([1, 1]), np.array([9, 9])
    >>> first = Model("a", "student", "a", {0: good, 1: bad, 2: good})
    >>> seed_signs(first, Model("b", "student", "b", {0: bad, 1: good}), "ndcg@10")
    '+-'
    """
    signs = []
    for seed in sorted(set(model.positions) & set(other.positions)):
        pair = [metric_values(each.positions[seed], metric).mean() for each in (model, other)]
        signs.append("+" if pair[0] > pair[1] else "-" if pair[0] < pair[1] else "=")
    return "".join(signs)


@dataclass(frozen=True)
class Cost:
    """What is known of one model's cost.

    Attributes:
        name: unique within the table.
        kind: student, teacher or baseline.
        model: as in `Model`.
        timing: what its training recorded: ``train_seconds_per_epoch``, ``targets_per_second``.
        rounds: what each measurement of its inference gave: ``users_per_second``, ``peak_mb``, ``model_mb``,
            ``parameters``.
        missing: why something is absent.
    """

    name: str
    kind: Kind
    model: str
    timing: Mapping[str, float]
    rounds: Sequence[Mapping[str, float]]
    missing: str = ""


def compare_costs(models: Sequence[Cost], base: str) -> list[Row]:
    """One row per model; ratios are of time and memory, relative to the model called `base`: above 1 is dearer.

    The ratio of inference times is taken round by round and given as its median, because what disturbs the machine
    disturbs the models of one round alike. That of memory compares what each process held beyond program and data.
    """
    known = {model.name: model for model in models}
    return [_cost_row(model, known.get(base)) for model in models]


def _cost_row(model: Cost, base: Cost | None) -> Row:
    row: Row = {"name": model.name, "kind": model.kind, "model": model.model}
    row["parameters"] = int(model.rounds[0]["parameters"]) if model.rounds else None
    row |= {key: model.timing.get(key) for key in ("train_seconds_per_epoch", "targets_per_second")}
    for key in ("users_per_second", "peak_mb", "model_mb"):
        row[key] = median(found[key] for found in model.rounds) if model.rounds else None
    row["ratio"] = _ratios(model, base) if base else {}
    row["missing"] = model.missing
    return row


def _ratios(model: Cost, base: Cost) -> dict[str, float]:
    ratios = {}
    own, theirs = (each.timing.get("train_seconds_per_epoch") for each in (model, base))
    if own and theirs:
        ratios["training"] = own / theirs
    if model.rounds and base.rounds:
        pairs = list(zip(model.rounds, base.rounds, strict=False))
        ratios["memory"] = median(own["model_mb"] / max(other["model_mb"], 1e-9) for own, other in pairs)
        ratios["inference"] = median(other["users_per_second"] / own["users_per_second"] for own, other in pairs)
    return ratios
