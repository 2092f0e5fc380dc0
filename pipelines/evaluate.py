"""Stage ``evaluate``: every model ranks all items for every user, in parallel; then leaderboard and report.

The node's folder depends on its inputs alone. Times (latency, seconds per epoch) differ from run to run: they go to
``logs/``, and into the copies of the leaderboard and the report in the run folder itself (`pipelines.report`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.artifacts.format import write_json
from components.artifacts.models import load_model, read_model_config
from components.data.prepared import PreparedSet
from components.errors import UnknownNameError, UserError
from components.evaluation.beyond_accuracy import beyond_accuracy
from components.evaluation.efficiency import artifact_bytes, measure
from components.evaluation.leaderboard import ModelResult, Protocol, build_leaderboard, main_metric
from components.evaluation.metrics import CUTOFFS, Ties, metric_values
from components.evaluation.ranking import sample_cases, target_positions, top_lists
from components.evaluation.slices import SliceConfig, case_slices
from components.inference import one_thread
from components.reports import facts
from components.schema import CONFIG_FILE, USER
from pipelines.stages import SEED_MARK
from pipelines.storage.exchange import Exchange, call

if TYPE_CHECKING:
    from pipelines.stages import Progress, StageContext

LEADERBOARD_FILE: Final = "leaderboard.json"
REPORT_DATA_FILE: Final = "report.json"
POSITIONS_FOLDER: Final = "positions"
POSITION: Final = "position"
MODEL_STAGES: Final = ("teach/", "distill/")
PREPARE: Final = "prepare"


class EvaluateConfig(BaseModel):
    """How models are compared.

    Attributes:
        cutoffs: K of Recall, NDCG and MRR.
        part: which part of the split is ranked; ``"test"`` unless settings are still being chosen.
        mask_history: leave a user's own items out of the ranking.
        ties: do items that score like the target stand before it?
        baseline: name of the model that others are compared with; null compares nothing.
        bootstrap: resamples of the 95 % intervals.
        batch_size: histories per batch.
        list_length: items per list when coverage, novelty and exposure are measured.
        list_users: users whose lists are measured, at most.
        requests: requests whose latency is measured per model; 0 measures no times.
        slices: groups of users that get metrics of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cutoffs: tuple[int, ...] = Field(default=CUTOFFS, min_length=1)
    part: Literal["valid", "test"] = "test"
    mask_history: bool = False
    ties: Ties = "against"
    baseline: str | None = "plain"
    bootstrap: int = Field(default=1000, ge=100)
    batch_size: int = Field(default=512, ge=1)
    list_length: int = Field(default=10, ge=1)
    list_users: int = Field(default=20_000, ge=1)
    requests: int = Field(default=100, ge=0)
    slices: SliceConfig = SliceConfig()

    @field_validator("cutoffs")
    @classmethod
    def _increasing(cls, cutoffs: tuple[int, ...]) -> tuple[int, ...]:
        if min(cutoffs) < 1 or list(cutoffs) != sorted(set(cutoffs)):
            raise ValueError("expected increasing numbers from 1, such as [5, 10, 20]")
        return cutoffs


def run(context: StageContext) -> None:
    """Write ``positions/``, ``leaderboard.json`` and ``report.json``; then the run's leaderboard and report."""
    from pipelines.report import publish_report  # here, with matplotlib, which other stages do without

    config: EvaluateConfig = context.config.evaluate
    inputs = {node: folder.resolve() for node, folder in context.inputs.items()}
    models, left_out = find_models(inputs)
    baseline = chosen_baseline(config, {row_name(node) for node in models})
    folder = context.folder.resolve()  # workers have another current folder
    context.progress.start(len(models), "models")
    custom = context.config.cluster.placement.data
    evaluated = _rank_all(models, inputs[PREPARE], folder, config, context.progress, custom)
    context.progress.note("comparing")
    _in_task(folder, custom, summarize, inputs, evaluated, folder, config, baseline, context.seed)
    if config.requests:
        context.progress.note("measuring latency")
        context.timing.update(_in_task(folder, custom, measure_models, models, inputs[PREPARE], config))
    report = publish_report(context.config, context.folder, context.timing)
    skipped = f"; cannot rank new histories: {', '.join(left_out)}" if left_out else ""
    context.progress.note(f"report: {report}{skipped}")


def find_models(inputs: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """The model artifacts among the inputs, and the nodes that trained none (teachers that are finished arrays).

    Raises:
        UserError: there is no model.
    """
    nodes = {node: folder for node, folder in sorted(inputs.items()) if node.startswith(MODEL_STAGES)}
    models = {node: folder for node, folder in nodes.items() if (folder / CONFIG_FILE).is_file()}
    if not models:
        raise UserError("nothing to evaluate: the run trains no model; add `baselines`, a `student` or `teachers`")
    return models, [node for node in nodes if node not in models]


def row_name(node: str) -> str:
    """The row of the leaderboard that a node belongs to.

    >>> row_name("distill/prm-kd/seed-1"), row_name("teach/unisrec")
    ('prm-kd', 'unisrec')
    """
    return node.partition("/")[2].split(SEED_MARK)[0]


def node_seed(node: str) -> int:
    """The seed of a node; 0 where its name has none.

    >>> node_seed("distill/prm-kd/seed-12"), node_seed("teach/unisrec")
    (12, 0)
    """
    return int(node.partition(SEED_MARK)[2] or 0)


def chosen_baseline(config: EvaluateConfig, names: Iterable[str]) -> str | None:
    """The baseline of the comparison; None where the default one is not part of the run.

    Raises:
        UnknownNameError: the configuration names a model that the run does not have.
    """
    if config.baseline is None or config.baseline in (known := set(names)):
        return config.baseline
    if "baseline" in config.model_fields_set:
        raise UnknownNameError("model of this run in evaluate.baseline", config.baseline, known)
    return None


def _rank_all(
    models: Mapping[str, Path],
    prepared: Path,
    folder: Path,
    config: EvaluateConfig,
    progress: Progress,
    custom: dict[str, float],
) -> dict[str, dict[str, Any]]:
    """One Ray task per model; paths go out, a few numbers come back."""
    import ray

    rank = ray.remote(num_cpus=1, max_retries=1, resources=custom)(call)
    exchange = Exchange.of(folder)
    waiting = {
        rank.remote(exchange, folder, evaluate_model, path, prepared, positions_file(folder, node), config): node
        for node, path in models.items()
    }
    evaluated: dict[str, dict[str, Any]] = {}
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            node = waiting[done[0]]
            evaluated[node] = ray.get(done[0])
            del waiting[done[0]]
            progress.advance(1, **{row_name(node): f"{evaluated[node]['shown']:.4f}"})
        if exchange:
            exchange.collect(folder)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
    return evaluated


def _in_task(folder: Path, custom: dict[str, float], function: Any, *arguments: Any) -> Any:
    """Run a function in a worker: the driver stays small, whatever the size of the data.

    Where nodes share no disk, it is a worker of the driver's node, which holds all that was evaluated.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if Exchange.of(folder):
        own = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        beside = ray.remote(num_cpus=0, max_retries=1)(function).options(scheduling_strategy=own)
        return ray.get(beside.remote(*arguments))

    return ray.get(ray.remote(num_cpus=1, max_retries=1, resources=custom)(function).remote(*arguments))


def positions_file(folder: Path, node: str) -> Path:
    """Where the positions of a model lie: ``positions/distill/plain/seed-0.parquet``."""
    return folder / POSITIONS_FOLDER / f"{node}.parquet"


def evaluate_model(folder: Path, prepared: Path, output: Path, config: EvaluateConfig) -> dict[str, Any]:
    """Rank all items for every user with one model and write (user, position) to `output`.

    Args:
        folder: a model artifact.
        prepared: the prepared set.
        output: the Parquet file to write.
        config: what to measure.

    Returns:
        kind, parameters, bytes and beyond_accuracy of the leaderboard's row; the main metric as ``shown``.
    """
    data = PreparedSet(prepared)
    cases = data.sequences.cases(config.part)
    model = load_model(folder)
    with one_thread():
        positions = target_positions(
            model, cases, mask_history=config.mask_history, ties=config.ties, batch_size=config.batch_size
        )
        sample = sample_cases(cases, config.list_users)
        lists = top_lists(model, sample, config.list_length, exclude_seen=config.mask_history)
    output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({USER: cases.users, POSITION: positions.astype(np.int32)}), output, compression="zstd")
    return {
        "kind": read_model_config(folder).family,
        "parameters": model.parameter_parts(),
        "bytes": artifact_bytes(folder),
        "beyond_accuracy": beyond_accuracy(lists, data.counts),
        "shown": float(metric_values(positions, main_metric(config.cutoffs)).mean()),
    }


def summarize(
    inputs: Mapping[str, Path],
    evaluated: Mapping[str, Mapping[str, Any]],
    folder: Path,
    config: EvaluateConfig,
    baseline: str | None,
    seed: int,
) -> None:
    """Compare the models and write ``leaderboard.json`` and ``report.json``, both free of clock time.

    Args:
        inputs: folders by node.
        evaluated: what `evaluate_model` returned, by node.
        folder: the evaluate node's own; it holds the positions.
        config: how to compare.
        baseline: the row to compare with, if any.
        seed: source of the bootstrap.
    """
    prepared = PreparedSet(inputs[PREPARE])
    cases = prepared.sequences.cases(config.part)
    protocol = Protocol(config.cutoffs, baseline, config.bootstrap, seed)
    results = [_result(node, evaluated[node], folder) for node in sorted(evaluated)]
    rows = build_leaderboard(results, case_slices(cases, prepared.counts, config.slices), protocol)
    leaderboard = {
        "split": split_name(prepared.manifest),
        "part": config.part,
        "users": len(cases),
        "cutoffs": list(config.cutoffs),
        "baseline": baseline,
        "protocol": config.model_dump(include={"mask_history", "ties", "list_length", "list_users"}),
        "slices": config.slices.model_dump(),
        "rows": rows,
    }
    write_json(folder / LEADERBOARD_FILE, leaderboard)
    write_json(folder / REPORT_DATA_FILE, report_data(inputs, [row["name"] for row in rows], prepared))


def _result(node: str, measured: Mapping[str, Any], folder: Path) -> ModelResult:
    positions = pq.read_table(positions_file(folder, node), columns=[POSITION])[POSITION].to_numpy()
    known = {name: measured[name] for name in ("kind", "parameters", "bytes", "beyond_accuracy")}
    return ModelResult(name=row_name(node), seed=node_seed(node), positions=positions, **known)


def split_name(manifest: Mapping[str, Any]) -> str:
    """The split of a prepared set as its manifest records it; empty where it does not."""
    prepare = (manifest.get("config") or {}).get(PREPARE) or {}
    split = manifest.get("split") or prepare.get("split") or ""
    return str(split.get("kind", "")) if isinstance(split, Mapping) else str(split)


def report_data(inputs: Mapping[str, Path], names: list[str], prepared: PreparedSet) -> dict[str, Any]:
    """What the report shows beside the leaderboard; see `components.reports.html.render_report`."""
    folders: dict[str, list[Path]] = {name: [] for name in names}
    for node, folder in sorted(inputs.items()):
        if node.startswith(MODEL_STAGES) and row_name(node) in folders:
            folders[row_name(node)].append(folder)
    return {
        "curves": facts.training_history(folders),
        "distillation": facts.distillation_facts(folders),
        "data": facts.data_facts(prepared),
        "audit": facts.audit_facts(prepared.path),
        "counts": facts.manifest_counts(prepared.manifest),
        "order": names,
    }


def measure_models(models: Mapping[str, Path], prepared: Path, config: EvaluateConfig) -> dict[str, float]:
    """Times of the first seed of every model, one after the other in one process: ``{"latency_p50_ms/NAME": …}``."""
    cases = PreparedSet(prepared).sequences.cases(config.part)
    times: dict[str, float] = {}
    for name, folder in {row_name(node): models[node] for node in sorted(models, reverse=True)}.items():
        measured = measure(load_model(folder), cases, requests=config.requests)
        times |= {f"{key}/{name}": value for key, value in measured.items()}
    return times
