"""The search through Ray Tune: Optuna proposes, budgets refuse, ASHA stops; all that knows Tune is here.

Tune's own experiment holds the TensorBoard logs and is never read again: what a search remembers is in the records of
its students (`pipelines.search.trial`), which a later start feeds to a new experiment.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from components.data.prepared import PreparedSet
from components.errors import ConfigError
from components.training.loop import World
from pipelines.config import ClusterConfig, RunConfig
from pipelines.ray_session import cluster_address, training_gpu
from pipelines.search.candidates import Scale, Weight, decoded, encoded, setting_key, setting_of
from pipelines.search.config import SearchConfig
from pipelines.search.trial import Record, SearchTrial, read_record, trial_folder, write_record
from pipelines.study.plan import Setting
from pipelines.train_bridge import MAX_FAILURES, POLL_SECONDS
from tune_spaces import Space

NUMBER: Final = "number"  # of the student, beside what was drawn
NDCG: Final = "valid_ndcg_10"  # names that TensorBoard shows
BYTES, LATENCY, PARAMETERS = "bytes", "latency_ms", "parameters"
OVER_BUDGET: Final = -1.0  # NDCG@10 that Optuna is told of a student that is too large; less where it is far too large
WORST_LATENCY: Final = 1e6
ATTEMPTS: Final = 200  # proposals over budget before one is let through
SHARED: Final = 0.4  # of the object store that the data may take
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """What a search works on.

    Attributes:
        config: the run.
        search: its section `search`.
        trials: folder of the students' records, absolute.
        prepared: the prepared or annotated set.
        seed: of every student.
        scale: weighs students of the catalog.
        space: the keys that are searched.
        started: identity of the artifact that students begin with, "" without one.
    """

    config: RunConfig
    search: SearchConfig
    trials: Path
    prepared: Path
    seed: int
    scale: Scale
    space: Space
    started: str = ""

    def proposal(self, drawn: dict[str, Any]) -> tuple[Record, Setting]:
        """The student that was drawn.

        Raises:
            ConfigError: the drawn values contradict each other.
        """
        values = decoded(self.space, drawn)
        setting = setting_of(self.config, values)
        more = {"mask_history": self.config.evaluate.mask_history, "start": self.started}
        key = setting_key(setting, self.seed, more)
        return Record(int(drawn.get(NUMBER, 0)), key, values, self.scale.weigh(setting)), setting


class WithinBudget(Searcher):
    """Hands on what Optuna proposes, but for students that are over budget, impossible, or were proposed before.

    Optuna is told at once how those fared: they cost no training and no place among the trials.

    Args:
        inner: proposes.
        search: weighs.
        numbers: of the students that an earlier start began, by key; new ones are counted on.
    """

    def __init__(self, inner: OptunaSearch, search: Search, numbers: Mapping[str, int]) -> None:
        super().__init__(metric=inner.metric, mode=inner.mode)
        self._inner, self._search = inner, search
        self._ids: dict[str, str] = {}
        self._seen: set[str] = set()
        self._numbers, self._last = numbers, max(numbers.values(), default=0)
        self.refused = {"over budget": 0, "impossible": 0, "repeated": 0}

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """See `Searcher`."""
        taken: bool = self._inner.set_search_properties(metric, mode, config, **spec)
        self._metric, self._mode = self._inner.metric, self._inner.mode
        return taken

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next student."""
        for attempt in range(ATTEMPTS):
            name = f"{trial_id}-{attempt}"
            drawn = self._inner.suggest(name)
            if drawn is None:
                return None
            reason, weight, key = self._look_at(drawn)
            if not reason or attempt == ATTEMPTS - 1:
                self._ids[trial_id] = name
                self._seen.add(key)
                return {**drawn, NUMBER: self._number(key)}
            self.refused[reason] += 1
            self._inner.on_trial_complete(name, self._told(reason, weight, key))
        return None

    def _number(self, key: str) -> int:
        if key in self._numbers:
            return self._numbers[key]
        self._last += 1
        return self._last

    def _look_at(self, drawn: dict[str, Any]) -> tuple[str, Weight | None, str]:
        """Why a student is refused ("" where it is not), what it weighs, its key."""
        try:
            record, _ = self._search.proposal(drawn)
        except ConfigError as error:
            logger.info("refused %s: %s", drawn, error)
            return "impossible", None, ""
        if record.weight.excess(self._search.search) > 0:
            return "over budget", record.weight, record.key
        return ("repeated" if record.key in self._seen else ""), record.weight, record.key

    def _told(self, reason: str, weight: Weight | None, key: str) -> dict[str, float]:
        """What Optuna learns of a refused student."""
        known = read_record(trial_folder(self._search.trials, key)) if reason == "repeated" else None
        if known is not None and known.epochs:
            return numbers(known)
        excess = weight.excess(self._search.search) if weight else 1.0
        size = weight.bytes if weight else math.inf
        return {NDCG: OVER_BUDGET - excess, BYTES: min(size, 1e12), LATENCY: WORST_LATENCY, PARAMETERS: 0.0}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See `Searcher`."""
        self._inner.on_trial_result(self._ids[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See `Searcher`."""
        self._inner.on_trial_complete(self._ids[trial_id], result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search remembers by its records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""


class _Stopped(tune.Callback):
    """Writes down that a student was stopped early, when Tune says that it is over and its record does not."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See `tune.Callback`."""
        record, _ = self._search.proposal(dict(trial.config))
        folder = trial_folder(self._search.trials, record.key)
        known = read_record(folder)
        if known is not None and known.state == "running":
            write_record(folder, replace(known, state="stopped"))


def numbers(record: Record) -> dict[str, float]:
    """What Tune, and TensorBoard, see of a student."""
    failed = record.state == "failed"
    return {
        NDCG: OVER_BUDGET if failed else record.best,
        BYTES: float(record.weight.bytes),
        PARAMETERS: float(record.weight.parameters),
        LATENCY: WORST_LATENCY if record.latency_ms is None else record.latency_ms,
    }


def places(search: SearchConfig, cluster: ClusterConfig) -> int:
    """Students that train at the same time: as many as the cluster has places for, each of what one training takes.

    A session on this machine has more logical CPUs than cores; there cores count.
    """
    if search.max_parallel is not None:
        return search.max_parallel
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = float(resources.get("CPU", 1.0))
    if cluster_address(cluster, os.environ) is None:
        cpus = min(cpus, os.cpu_count() or 1)
    return max(1, int(cpus // cluster.cpus_per_worker))


def run_search(
    search: Search,
    records: Sequence[Record],
    logs: Path,
    show: Callable[[], None],
) -> dict[str, int]:
    """Try students until `trials` of them are over; those of `records` answer from their records.

    Args:
        search: what is searched.
        records: of an earlier start, in their order.
        logs: where Tune writes TensorBoard's files.
        show: called twice a second, to say how far the search is.

    Returns:
        How many proposals were refused before they became trials, by reason.
    """
    chosen, cluster = search.search, search.config.cluster.model_copy(update={"num_workers": 1})
    space = {key: domain.primitive() for key, domain in search.space.items()}
    asked = [(record, encoded(search.space, record.values)) for record in records]
    again = [(record, drawn) for record, drawn in asked if drawn is not None]
    constrained = chosen.mode == "constrained"
    metric: Any = NDCG if constrained else [NDCG, BYTES, LATENCY]
    mode: Any = "max" if constrained else ["max", "min", "min"]
    points = [drawn for _, drawn in again] or None
    inner = OptunaSearch(metric=metric, mode=mode, seed=search.seed, points_to_evaluate=points)
    searcher = WithinBudget(inner, search, {record.key: record.number for record in records})
    resources = {"CPU": cluster.cpus_per_worker}
    if training_gpu(cluster):
        resources["GPU"] = cluster.gpus_per_worker
    trainable = tune.with_parameters(
        _train, search=search, threads=max(1, int(cluster.cpus_per_worker)), data=_shared_data(search)
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=NDCG if constrained else None,
            mode="max" if constrained else None,
            search_alg=searcher,
            scheduler=_scheduler(search) if constrained else None,  # with several metrics Tune takes none
            num_samples=max(chosen.trials, len(again)),
            max_concurrent_trials=places(chosen, cluster),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(logs.absolute()),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),  # of processes: errors are recorded
            callbacks=[_Stopped(search)],
        ),
    )
    _fit(tuner, show)
    show()
    return searcher.refused


def _scheduler(search: Search) -> ASHAScheduler:
    epochs = search.config.training.epochs
    grace = min(search.search.grace_epochs, epochs)
    return ASHAScheduler(max_t=epochs + 1, grace_period=grace, reduction_factor=search.search.reduction)


def _shared_data(search: Search) -> Any:
    """The annotated set in the object store, one copy for all students of a node; None where it is too large."""
    data = PreparedSet(search.prepared)
    distillation = search.config.distillation
    teachers = (distillation.teachers or data.teachers) if distillation and search.config.teachers else []
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if data.hold(teachers) > SHARED * resources.get("object_store_memory", 0.0):
        return None
    return data


def _train(config: dict[str, Any], search: Search, threads: int, data: PreparedSet | None) -> None:
    """One student, in a worker."""
    torch.set_num_threads(threads)
    record, setting = search.proposal(config)
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    masked = search.config.evaluate.mask_history
    start = Path(search.config.start) if search.config.start else None
    trial = SearchTrial(record, setting, search.trials, search.prepared, search.seed, masked, threads, start)
    finished = trial.attempt(World(device=device), lambda now: tune.report(numbers(now)), data)
    gc.collect()  # the process is used again: what a training left in cycles would pile up
    tune.report(numbers(finished))


def _fit(tuner: tune.Tuner, tick: Callable[[], None]) -> None:
    """`tuner.fit` in a thread of its own: the stage's thread shows the news."""
    problems: list[BaseException] = []

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:  # noqa: BLE001 - raised again in the stage's thread
            problems.append(error)

    thread = threading.Thread(target=fit, name="tune", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        tick()
    if problems:
        raise problems[0]
