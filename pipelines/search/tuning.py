"""The search through Ray Tune: Optuna proposes, ASHA stops; with `pipelines.search.proposals` all that knows Tune.

Tune's own experiment holds the TensorBoard logs and is never read again: what a search remembers is in the records of
its students (`pipelines.search.trial`), which a later start feeds to a new experiment.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from components.data.prepared import PreparedSet
from components.training.loop import World
from pipelines.config import ClusterConfig
from pipelines.ray_session import cluster_address, training_gpu
from pipelines.search.candidates import Scale, Weight, encoded
from pipelines.search.proposals import BYTES, LATENCY, NDCG, NUMBER, PARAMETERS, Search, WithinBudget, numbers
from pipelines.search.trial import Record, SearchTrial, State, mark, read_record, read_records, trial_folder
from pipelines.train_bridge import MAX_FAILURES
from pipelines.tune_fit import fit

EPOCHS: Final = "training.epochs"  # may be searched
SHARED: Final = 0.4  # of a node's object store that the data may take
DIED: Final = "its process died, perhaps for want of memory; lower search.max_parallel"


class Ends(tune.Callback):
    """Writes down how a student ended, when Tune says that it is over and its record does not."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `tune.Callback`."""
        self._mark(trial, "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `tune.Callback`."""
        self._mark(trial, "failed", DIED)

    def _mark(self, trial: Any, state: State, reason: str = "") -> None:
        record = first_record(self._search, dict(trial.config))
        folder = trial_folder(self._search.trials, record.key)
        known = read_record(folder) or record
        if known.state == "running":
            mark(folder, known, state, reason)


def first_record(search: Search, config: dict[str, Any]) -> Record:
    """What is known of a student when it becomes a trial."""
    key, values, _ = search.proposal(config)
    return Record(int(config[NUMBER]), key, values, Weight(int(config[PARAMETERS]), int(config[BYTES])))


def places(search: Search) -> int:
    """Students that train at the same time: as many as the cluster has places for, each of what one training takes.

    A session on this machine has more logical CPUs than cores; there cores count.
    """
    if search.search.max_parallel is not None:
        return search.search.max_parallel
    cluster: ClusterConfig = search.config.cluster
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = float(resources.get("CPU", 1.0))
    if cluster_address(cluster, os.environ) is None:
        cpus = min(cpus, os.cpu_count() or 1)
    found = cpus / cluster.cpus_per_worker
    if training_gpu(cluster, "students"):
        found = min(found, float(resources.get("GPU", 0.0)) / cluster.gpus_per_worker)
    return max(1, int(found))


def run_search(
    search: Search, scale: Scale, records: Sequence[Record], logs: Path, show: Callable[[], None]
) -> dict[str, int]:
    """Try students until `trials` of them are over; those of `records` answer from their records.

    Args:
        search: what is searched.
        scale: weighs students of the catalog.
        records: of an earlier start, in their order.
        logs: where Tune writes TensorBoard's files.
        show: called twice a second, to say how far the search is.

    Returns:
        How many proposals were refused before they became trials, by reason.
    """
    chosen, cluster = search.search, search.config.cluster.model_copy(update={"num_workers": 1})
    again = [drawn for record in records if (drawn := encoded(search.space, record.values)) is not None]
    constrained = chosen.mode == "constrained"
    metric: Any = NDCG if constrained else [NDCG, BYTES, LATENCY]
    mode: Any = "max" if constrained else ["max", "min", "min"]
    inner = OptunaSearch(metric=metric, mode=mode, seed=search.seed, points_to_evaluate=again or None)
    begun = {record.key: record.number for record in read_records(search.trials)}
    searcher = WithinBudget(inner, search, scale, begun)
    resources = {"CPU": cluster.cpus_per_worker, **cluster.placement.students}
    if training_gpu(cluster, "students"):
        resources["GPU"] = cluster.gpus_per_worker
    threads = max(1, int(cluster.cpus_per_worker))
    trainable = tune.with_parameters(_train, search=search, threads=threads, data=_shared_data(search))
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={key: domain.primitive() for key, domain in search.space.items()},
        tune_config=tune.TuneConfig(
            metric=NDCG if constrained else None,
            mode="max" if constrained else None,
            search_alg=searcher,
            scheduler=scheduler_of(search) if constrained else None,  # with several metrics Tune takes none
            num_samples=max(chosen.trials, len(again)),
            max_concurrent_trials=places(search),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(logs.absolute()),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),  # of processes: errors are recorded
            callbacks=[Ends(search)],
        ),
    )
    fit(tuner, show)
    show()
    return dict(searcher.refused)


def scheduler_of(search: Search) -> ASHAScheduler | None:
    """ASHA over the epochs that a student may have; None where none would be stopped before its last one."""
    known = search.space[EPOCHS].corners() if EPOCHS in search.space else [search.config.training.epochs]
    epochs, grace = max(map(int, known)), search.search.grace_epochs
    if grace >= epochs:
        return None
    return ASHAScheduler(max_t=epochs + 1, grace_period=grace, reduction_factor=search.search.reduction)


def _shared_data(search: Search) -> PreparedSet | None:
    """The annotated set in the object store, one copy for all students of a node; None where it is too large."""
    data = PreparedSet(search.prepared)
    distillation = search.config.distillation
    teachers = (distillation.teachers or data.teachers) if distillation and search.config.teachers else []
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    stores = [node["Resources"].get("object_store_memory", 0.0) for node in nodes if node["Alive"]]
    return data if data.hold(teachers) <= SHARED * min(stores, default=0.0) else None


def _train(config: dict[str, Any], search: Search, threads: int, data: PreparedSet | None) -> None:
    """One student, in a worker."""
    torch.set_num_threads(threads)
    _, _, setting = search.proposal(config)
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    masked, start = search.config.evaluate.mask_history, search.config.start
    trial = SearchTrial(
        first_record(search, config),
        setting,
        search.trials,
        search.prepared,
        search.seed,
        masked,
        threads,
        Path(start) if start else None,
    )
    finished = trial.attempt(World(device=device), lambda now: tune.report(numbers(now, search.search)), data)
    gc.collect()  # the process is used again: what a training left in cycles would pile up
    tune.report(numbers(finished, search.search))
