"""From positions to the leaderboard: means over seeds, intervals, tests against the baseline. No clock time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from components.evaluation.metrics import CUTOFFS, metric_names, metric_values
from components.evaluation.significance import (
    holm,
    mean_interval,
    paired_test,
    relative_gain,
    relative_gain_interval,
    seed_mean,
)
from components.evaluation.slices import BoolArray, slice_metrics

Kind = Literal["student", "teacher", "baseline"]
FloatArray = NDArray[np.float64]
MAIN_CUTOFF: Final = 10


@dataclass(frozen=True)
class ModelResult:
    """What the evaluation of one model artifact gives.

    Attributes:
        name: the row it belongs to: the variant or the teacher. Results of one name are its seeds.
        kind: ``"student"``, ``"teacher"`` or ``"baseline"``.
        seed: its seed.
        positions: (C,) position of every user's target.
        parameters: by part, and their total.
        bytes: size of the artifact.
        beyond_accuracy: coverage, novelty, Gini of exposure.
    """

    name: str
    kind: Kind
    seed: int
    positions: NDArray[Any]
    parameters: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    beyond_accuracy: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How the leaderboard is computed.

    Attributes:
        cutoffs: K of the metrics.
        baseline: the row that others are compared with; None compares nothing.
        bootstrap: resamples of the intervals.
        seed: source of the resamples.
    """

    cutoffs: tuple[int, ...] = CUTOFFS
    baseline: str | None = None
    bootstrap: int = 1000
    seed: int = 0


def main_metric(cutoffs: tuple[int, ...] | list[int]) -> str:
    """The metric that orders the leaderboard: NDCG@10, or at the first cutoff where 10 is not among them.

    >>> main_metric((5, 10)), main_metric((3,))
    ('ndcg@10', 'ndcg@3')
    """
    return f"ndcg@{MAIN_CUTOFF if MAIN_CUTOFF in cutoffs else cutoffs[0]}"


def build_leaderboard(
    results: list[ModelResult], masks: Mapping[str, BoolArray], protocol: Protocol
) -> list[dict[str, Any]]:
    """The rows of the leaderboard, best first.

    Args:
        results: one per model artifact, all over the same users in the same order.
        masks: (C,) membership of the users in each slice.
        protocol: cutoffs, baseline and resampling.
    """
    groups: dict[str, list[ModelResult]] = {}
    for result in results:
        groups.setdefault(result.name, []).append(result)
    baseline = _per_user(groups[protocol.baseline], protocol.cutoffs) if protocol.baseline in groups else None
    rows = [_row(group, masks, protocol, baseline) for group in groups.values()]
    _correct(rows, metric_names(protocol.cutoffs))
    best = main_metric(protocol.cutoffs)
    return sorted(rows, key=lambda row: (-row["metrics"][best], row["name"]))


def _per_user(group: list[ModelResult], cutoffs: tuple[int, ...]) -> dict[str, FloatArray]:
    """(C,) values of every metric, averaged over the seeds."""
    return {
        name: seed_mean([metric_values(result.positions, name) for result in group]) for name in metric_names(cutoffs)
    }


def _row(
    group: list[ModelResult],
    masks: Mapping[str, BoolArray],
    protocol: Protocol,
    baseline: dict[str, FloatArray] | None,
) -> dict[str, Any]:
    first = group[0]
    values = _per_user(group, protocol.cutoffs)
    compared = baseline if first.name != protocol.baseline else None
    return {
        "name": first.name,
        "kind": first.kind,
        "seeds": sorted(result.seed for result in group),
        "metrics": {name: float(value.mean()) for name, value in values.items()},
        "std": {name: _seed_deviation(group, name) for name in values},
        "interval": {
            name: list(mean_interval(value, protocol.bootstrap, protocol.seed)) for name, value in values.items()
        },
        "baseline": protocol.baseline if compared else None,
        "p_value": {name: paired_test(value, compared[name]) for name, value in values.items()} if compared else {},
        "gain": {name: _gain(value, compared[name], protocol) for name, value in values.items()} if compared else {},
        "slices": _mean_slices([slice_metrics(result.positions, dict(masks), protocol.cutoffs) for result in group]),
        "beyond_accuracy": _mean_of([result.beyond_accuracy for result in group]),
        "parameters": first.parameters,
        "bytes": first.bytes,
        "latency_ms": None,  # times are merged in outside the stage folder: see `add_timing`
        "train_seconds_per_epoch": None,
    }


def _seed_deviation(group: list[ModelResult], name: str) -> float:
    """Standard deviation over the seeds of the mean over users; 0 for one seed."""
    means = [float(metric_values(result.positions, name).mean()) for result in group]
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def _gain(candidate: FloatArray, baseline: FloatArray, protocol: Protocol) -> dict[str, Any]:
    interval = relative_gain_interval(candidate, baseline, protocol.bootstrap, protocol.seed)
    return {"relative": relative_gain(candidate, baseline), "interval": list(interval) if interval else None}


def _mean_of(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}


def _mean_slices(slices: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    means = {name: _mean_of([run[name] for run in slices]) for name in slices[0]}
    return {name: {**values, "users": int(values["users"])} for name, values in means.items()}


def _correct(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Holm's correction, per metric, over the rows of one kind: students are one family of questions."""
    for kind in {row["kind"] for row in rows}:
        family = [row for row in rows if row["kind"] == kind and row["p_value"]]
        for name in names:
            corrected = holm({row["name"]: row["p_value"][name] for row in family})
            for row in family:
                row["p_value"][name] = corrected[row["name"]]


def add_timing(leaderboard: dict[str, Any], timing: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A copy of the leaderboard with measured times in its rows.

    Args:
        leaderboard: what stage ``evaluate`` wrote.
        timing: by row name: ``latency_p50_ms``, ``latency_p99_ms``, ``users_per_second``,
            ``train_seconds_per_epoch``, each optional.
    """

    def timed(row: dict[str, Any]) -> dict[str, Any]:
        times = timing.get(row["name"], {})
        latency = {part: times.get(f"latency_{part}_ms") for part in ("p50", "p99")}
        return {
            **row,
            "latency_ms": latency if latency["p50"] is not None else None,
            "users_per_second": times.get("users_per_second"),
            "train_seconds_per_epoch": times.get("train_seconds_per_epoch"),
        }

    return {**leaderboard, "rows": [timed(row) for row in leaderboard["rows"]]}
