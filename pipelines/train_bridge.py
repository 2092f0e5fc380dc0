"""From a training job to Ray: one worker is a task, several are a Ray Train worker group; progress flows back.

One worker does without a worker group because starting one takes tens of seconds; both ways call the same function, and
both go on from the newest checkpoint when a worker or the driver was killed.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import Checkpoint as RayCheckpoint
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from components.training.loop import CHECKPOINT, World
from components.training.observer import Place
from pipelines.cluster.placement import Role
from pipelines.config import ClusterConfig
from pipelines.mailbox import Mailbox, Update
from pipelines.ray_session import training_gpu
from pipelines.stages import Progress
from pipelines.storage.exchange import Exchange, borrowed
from pipelines.storage.remote import Remote
from pipelines.training_job import Job

MAX_FAILURES = 3  # how often a killed worker is replaced
POLL_SECONDS = 0.5


class Messenger:
    """The loop's observer in a worker: rank 0 posts at most twice a second.

    Args:
        post: hands an update to a mailbox and returns a reference to wait for.
        rank: this worker's.
        grouped: whether it belongs to a Ray Train worker group.
        keep: called with every epoch's checkpoint, to keep it apart from this node.
    """

    def __init__(
        self, post: Callable[[Update], Any], rank: int, grouped: bool, keep: Callable[[], None] | None = None
    ) -> None:
        self._keep = keep
        self._post_remote, self.rank, self.grouped = post, rank, grouped
        self._done, self._sent = 0, 0.0
        self._posted: Any = None

    def begin(self, place: Place) -> None:
        """Tell the driver how much there is to do."""
        if self.rank == 0:
            self._post(Update(begun=place, epoch=place.epoch, epochs=place.epochs))

    def step(self, epoch: int, targets: int) -> None:
        """Count targets."""
        self._done += targets
        if self.rank == 0 and time.monotonic() - self._sent > POLL_SECONDS:
            self._send(Update(done=self._done, epoch=epoch))

    def epoch(self, row: dict[str, float], checkpoint: Path) -> None:
        """Show the epoch's numbers; in a group, hand the checkpoint to Ray Train as well."""
        if self.rank == 0:
            shown = {key: value for key, value in row.items() if key not in ("epoch", "targets")}
            self._send(Update(done=self._done, epoch=int(row["epoch"]), shown=shown))
        if self._keep:
            self._keep()
        if self.grouped:
            kept = RayCheckpoint.from_directory(str(checkpoint)) if self.rank == 0 else None
            ray.train.report(dict(row), checkpoint=kept)

    def close(self) -> None:
        """Wait until all news has arrived: a short training may be over before its first news is."""
        if self._posted is not None:
            ray.get(self._posted)  # calls of one process to an actor keep their order

    def _send(self, update: Update) -> None:
        self._post(update)
        self._done, self._sent = 0, time.monotonic()

    def _post(self, update: Update) -> None:
        self._posted = self._post_remote(update)


def run_training(job: Job, cluster: ClusterConfig, progress: Progress) -> dict[str, float]:
    """Train on the cluster and wait, showing progress.

    Returns:
        Figures that depend on the clock; see `pipelines.training_job.Job.run`.
    """
    role: Role = "teachers" if job.family == "teacher" else "students"
    gpu, custom = training_gpu(cluster, role), cluster.placement.of(role)
    mailbox, exchange = ray.remote(Mailbox).options(num_cpus=0).remote(), Exchange.of(job.folder)
    job = replace(job, threads=max(1, int(cluster.cpus_per_worker)))
    if cluster.num_workers == 1:
        task = ray.remote(_alone).options(
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker if gpu else 0,
            resources=custom,
            max_retries=MAX_FAILURES,
        )
        future = task.remote(job, exchange, mailbox)
    else:
        future = (
            ray.remote(_group).options(num_cpus=0, max_retries=0).remote(job, exchange, cluster, gpu, custom, mailbox)
        )
    figures = _wait(future, mailbox, progress)
    if exchange:
        exchange.collect(job.folder)
        exchange.forget(job.work)
    return figures


def _wait(future: Any, mailbox: Any, progress: Progress) -> dict[str, float]:
    progress.note("waiting for a free place on the cluster")
    while True:
        ready, _ = ray.wait([future], timeout=POLL_SECONDS)
        show(ray.get(mailbox.take.remote()), progress)
        if ready:
            result: dict[str, float] = ray.get(future)
            return result


def show(update: Update, progress: Progress) -> None:
    """Tell the person who waits; what a killed worker did is counted up to its last checkpoint."""
    if update.begun:
        progress.start(update.begun.targets, "targets", update.begun.done)
        progress.note("training")
        if resumed := update.begun.describe():
            progress.say(resumed)
    if update.done:
        progress.advance(update.done, epoch=f"{update.epoch}/{update.epochs}", **(update.shown or {}))


def _alone(job: Job, exchange: Exchange | None, mailbox: Any) -> dict[str, float]:
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    with borrowed(exchange, job, job.folder) as job:
        messenger = Messenger(mailbox.post.remote, 0, grouped=False, keep=_keeping(exchange, job))
        figures = job.run(World(device=device), messenger)
        messenger.close()
    return figures


def _group(
    job: Job, exchange: Exchange | None, cluster: ClusterConfig, gpu: bool, custom: dict[str, float], mailbox: Any
) -> dict[str, float]:
    """Start a Ray Train worker group; it replaces workers that die, up to `MAX_FAILURES` times."""
    resources = {"CPU": cluster.cpus_per_worker, **custom} | ({"GPU": cluster.gpus_per_worker} if gpu else {})
    worker: Any = _worker  # its return value reaches `Result.return_value`, which the annotations do not know yet
    trainer = TorchTrainer(
        worker,
        train_loop_config={"job": job, "exchange": exchange, "mailbox": mailbox},
        scaling_config=ScalingConfig(num_workers=cluster.num_workers, use_gpu=gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name=f"train-{uuid.uuid4().hex[:12]}",  # a name that was used before would silently resume Ray's own state
            storage_path=exchange.ray_path(job.work) if exchange else str((job.work / "ray-train").resolve()),
            storage_filesystem=Remote(exchange.uri).filesystem if exchange else None,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    finished: Any = trainer.fit()
    result: dict[str, float] = finished.return_value
    return result


def _worker(config: dict[str, Any]) -> dict[str, float]:
    job: Job = config["job"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    world = World(rank, context.get_world_size(), get_device())
    with borrowed(config["exchange"], job, job.folder if rank == 0 else None) as job:
        _take_over(job.work / CHECKPOINT)
        messenger = Messenger(config["mailbox"].post.remote, rank, grouped=True)
        figures = job.run(world, messenger)
        messenger.close()
    return figures


def _keeping(exchange: Exchange | None, job: Job) -> Callable[[], None] | None:
    """Sends a job's checkpoints to where another node finds them."""
    return partial(exchange.save, job.work) if exchange else None


def _take_over(folder: Path) -> None:
    """On a node that lacks the run's own checkpoint, take the one that Ray Train stored."""
    stored = ray.train.get_checkpoint()
    if stored is None or folder.exists():
        return
    with stored.as_directory() as source:
        partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
        shutil.copytree(source, partial)
        if not folder.exists():
            partial.rename(folder)
