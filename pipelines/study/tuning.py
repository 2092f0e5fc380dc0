"""Work on the cluster through Ray Tune: one trial per piece of work, so many at a time; all that knows Tune is here.

What a trial gives lies in folders of the run, where a later start finds it: Tune's own experiment is thrown away, and
its pickled state is never read.
"""

from __future__ import annotations

import gc
import shutil
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import tune

from components.training.loop import World
from components.training.observer import Observer
from pipelines.config import ClusterConfig
from pipelines.mailbox import Update
from pipelines.ray_session import training_gpu
from pipelines.study.news import Finished, News
from pipelines.train_bridge import MAX_FAILURES, Messenger
from pipelines.tune_fit import fit

WORK = "work"
DIED = "its process died, perhaps for want of memory; lower cluster.max_parallel_students"


class Work(Protocol):
    """What one trial does; it travels to a worker."""

    def attempt(self, world: World, observer: Observer) -> str:
        """Do it, and go on where a killed attempt stopped; returns why it failed, ``""`` where it did not."""


def run_works(
    works: Mapping[str, Work],
    cluster: ClusterConfig,
    folder: Path,
    show: Callable[[dict[str, Update], Finished], None],
) -> Finished:
    """Do all work and wait; returns why pieces failed, by name.

    Args:
        works: by name.
        cluster: each piece gets what one training worker gets; `max_parallel_students` run at a time.
        folder: where Tune may write; removed at the end.
        show: called twice a second with the news.
    """
    cluster = cluster.model_copy(update={"num_workers": 1})
    news: Any = ray.remote(News).options(num_cpus=0).remote()
    resources = {"CPU": cluster.cpus_per_worker, **cluster.placement.students}
    if training_gpu(cluster, "students"):
        resources["GPU"] = cluster.gpus_per_worker
    trainable = tune.with_parameters(_trial, works=dict(works), news=news, threads=max(1, int(cluster.cpus_per_worker)))
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={WORK: tune.grid_search(list(works))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=cluster.max_parallel_students,
            reuse_actors=True,  # short trials then do not wait for a process to start
        ),
        run_config=tune.RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=str(folder.absolute()),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),  # of processes: errors are caught in `_trial`
        ),
    )
    try:
        fit(tuner, lambda: show(*ray.get(news.take.remote())))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    updates, finished = ray.get(news.take.remote())
    outcomes = {name: finished.get(name, DIED) for name in works}
    show(updates, outcomes)
    return {name: reason for name, reason in outcomes.items() if reason}


def _trial(config: dict[str, str], works: Mapping[str, Work], news: Any, threads: int) -> None:
    name = config[WORK]
    torch.set_num_threads(threads)
    messenger = Messenger(partial(news.post.remote, name), 0, grouped=False)
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    failure = works[name].attempt(World(device=device), messenger)
    messenger.close()
    gc.collect()  # the process is used again: what a training left in cycles would pile up
    ray.get(news.finish.remote(name, failure))
    tune.report({"failed": bool(failure)})
