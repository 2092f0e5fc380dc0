"""The leaderboard and the report that people open, in the run folder itself: the stage's results, joined by times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from components.artifacts.format import read_json, write_json
from components.evaluation.leaderboard import add_timing
from components.reports import facts
from components.reports.html import render_report
from pipelines.cache import write_atomically
from pipelines.evaluate import LEADERBOARD_FILE, MODEL_STAGES, REPORT_DATA_FILE, row_name
from pipelines.executor import recorded_times
from pipelines.search.config import RESULT_FILE

if TYPE_CHECKING:
    from pipelines.config import RunConfig

REPORT_FILE: Final = "report.html"
SECONDS_PER_EPOCH: Final = "train_seconds_per_epoch"  # in the timing of the nodes that train
Times = Mapping[str, float]


def publish_report(config: RunConfig, folder: Path | None = None, timing: Times | None = None) -> Path:
    """Write ``leaderboard.json`` and ``report.html`` into the run folder, with times; returns the report's path.

    Args:
        config: the run.
        folder: where stage ``evaluate`` wrote; its finished folder by default.
        timing: what the stage measured; what an earlier run recorded in ``logs/`` by default.

    Raises:
        ArtifactError: the stage's results are missing or damaged.
    """
    stage_folder = folder or config.folder / "evaluate"
    nodes = recorded_times(config.folder)
    measured = nodes.get("evaluate", {}) if timing is None else timing
    results = {"dataset": config.name, **read_json(stage_folder / LEADERBOARD_FILE)}
    leaderboard = add_timing(results, row_times(measured, nodes))
    report = read_json(stage_folder / REPORT_DATA_FILE) | _run_facts(config, nodes)
    if config.search:
        report["search"] = read_json(config.folder / "search" / RESULT_FILE)
    report["curves"] = {name: report["curves"][name] for name in report["order"] if name in report["curves"]}
    write_json(config.folder / LEADERBOARD_FILE, leaderboard)
    target = config.folder / REPORT_FILE
    write_atomically(target, render_report(report, leaderboard))
    return target


def _run_facts(config: RunConfig, nodes: Mapping[str, Times]) -> dict[str, Any]:
    return {
        "name": config.name,
        "seeds": config.seeds,
        "versions": facts.versions(),
        "config": config.model_dump(mode="json"),
        "seconds": {node: times["seconds"] for node, times in nodes.items() if "seconds" in times},
    }


def row_times(timing: Times, nodes: Mapping[str, Times]) -> dict[str, dict[str, float]]:
    """Times by row of the leaderboard.

    Args:
        timing: what `pipelines.evaluate.measure_models` returned.
        nodes: the recorded timing of every node of the run.

    >>> row_times({"latency_p50_ms/plain": 0.4}, {"distill/plain/seed-0": {"train_seconds_per_epoch": 2.0}})
    {'plain': {'latency_p50_ms': 0.4, 'train_seconds_per_epoch': 2.0}}
    """
    times: dict[str, dict[str, float]] = {}
    for key, value in timing.items():
        kind, _, name = key.partition("/")
        if name:
            times.setdefault(name, {})[kind] = value
    epochs: dict[str, list[float]] = {}
    for node, recorded in nodes.items():
        if node.startswith(MODEL_STAGES) and SECONDS_PER_EPOCH in recorded:
            epochs.setdefault(row_name(node), []).append(recorded[SECONDS_PER_EPOCH])
    for name, seconds in epochs.items():
        times.setdefault(name, {})["train_seconds_per_epoch"] = float(np.mean(seconds))
    return times
