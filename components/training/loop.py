"""The training loop: one for students, teachers and pre-training, alone or as one of several data-parallel workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.data.batching import Batch, IntArray, TrainingBatches
from components.model import Phase
from components.training.checkpoints import (
    Checkpoint,
    load_parameters,
    model_tensors,
    read_checkpoint,
    select,
    write_checkpoint,
)
from components.training.config import TrainingConfig
from components.training.observer import Observer, Place
from components.training.optimizer import FusedAdam

CHECKPOINT = "checkpoint"
Objective = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class World:
    """This worker among its peers.

    Attributes:
        rank: 0 .. size - 1; rank 0 writes and reports.
        size: number of workers.
        device: where this worker computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass
class History:
    """What training did.

    Attributes:
        epochs: one row per epoch: epoch, loss, targets and, where validated, the metric.
        best_epoch: epoch of the best validation, -1 where nothing was validated.
        best: value of the metric there.
        seconds_per_epoch: wall time of each epoch run by this process, validation left out.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best: float = -math.inf
    seconds_per_epoch: list[float] = field(default_factory=list)


def learning_rate_factor(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Factor on the learning rate before optimizer step `step` (from 0) of `total_steps`.

    >>> learning_rate_factor(TrainingConfig(warmup_steps=4), 0, 100)
    0.25
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    if config.schedule == "linear":
        return max(1.0 - done, 0.0)
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    return 1.0


@contextmanager
def precision(config: TrainingConfig, device: torch.device) -> Iterator[None]:
    """bf16 where it is asked for, or where it helps (a GPU that has it).

    On a GPU that is autocast. On a CPU matrix products alone round their inputs to bf16, with sums and results in fp32:
    autocast gained nothing there at usual widths, the products alone do where the processor has bf16 units.
    """
    wanted = config.precision == "bf16"
    if config.precision == "auto" and device.type == "cuda":
        wanted = torch.cuda.is_bf16_supported()
    if not wanted:
        yield
    elif device.type == "cpu":
        products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        before = products.fp32_precision
        products.fp32_precision = "bf16"
        try:
            yield
        finally:
            products.fp32_precision = before
    else:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield


class Trainer:
    """Trains one model; `fit` may be called again after a kill and goes on from the last checkpoint.

    Args:
        model: the model; its parameters with ``requires_grad`` are trained.
        batches: the training part.
        config: how.
        objective: loss of a batch, the mean over its positions.
        validate: the metric to maximize; None trains all epochs and keeps the last.
        folder: where the checkpoint lies.
        world: this worker among its peers; with several, a process group must exist.
        observer: told of steps and epochs.
        phases: parts of training one after another; each but the first begins from the best model so far. The learning
            rate decays over all of them.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: TrainingBatches,
        config: TrainingConfig,
        *,
        objective: Objective,
        validate: Callable[[], float] | None,
        folder: Path,
        world: World | None = None,
        observer: Observer | None = None,
        metric: str = "ndcg@10",
        phases: Sequence[Phase] = (Phase(),),
    ) -> None:
        self.model, self.batches, self.config = model, batches, config
        self.objective, self.validate, self.metric = objective, validate, metric
        self.folder, self.world, self.observer = folder, world or World(), observer
        self.optimizer = FusedAdam(model.parameters(), config)
        self.steps_per_epoch = len(batches.epoch(0))
        self.history = History()
        self.best: dict[str, Tensor] = {}
        self.phases = tuple(phases)
        self.epochs = sum(self._longest(phase) for phase in self.phases)
        self._phase, self._phase_begin = 0, 0
        self._epoch, self._step = 0, 0
        self._loss, self._targets = self._zero(), 0
        self._saved = time.monotonic()

    def fit(self) -> History:
        """Train until the end or until patience runs out, then put the best parameters into the model."""
        self._resume()
        if self.observer:
            self.observer.begin(self._place())
        while True:
            while self._epoch < self._phase_end() and not self._exhausted():
                self._train_epoch()
            if self.best:
                load_parameters(self.model, self.best)
            if self._phase + 1 == len(self.phases):
                return self.history
            # A pure function of what the checkpoint holds: a run that is killed here comes here again.
            self._phase, self._phase_begin = self._phase + 1, self._epoch

    def _place(self) -> Place:
        per_epoch = sum(map(self.batches.num_targets, self.batches.epoch(0)))
        done = int(sum(row["targets"] for row in self.history.epochs)) + self._targets
        return Place(self.epochs, self._epoch, self._step, self.epochs * per_epoch, done)

    def _longest(self, phase: Phase) -> int:
        return phase.epochs or self.config.epochs

    def _phase_end(self) -> int:
        return self._phase_begin + self._longest(self.phases[self._phase])

    def _train_epoch(self) -> None:
        started = time.perf_counter()
        before_epoch = self.phases[self._phase].before_epoch
        if before_epoch and self._step == 0:
            with precision(self.config, self.world.device):
                before_epoch(self.world.rank, self.world.size)
        self.model.train()
        plan = self.batches.epoch(self._epoch)
        for windows in plan[self._step :]:
            self._train_step(windows)
            self._step += 1
            self._save_if_due()
        self.history.seconds_per_epoch.append(time.perf_counter() - started)
        self._finish_epoch()

    def _train_step(self, windows: IntArray) -> None:
        total = self._epoch * self.steps_per_epoch + self._step
        factor = learning_rate_factor(self.config, total, self.steps_per_epoch * self.epochs)
        self.optimizer.learning_rate = self.config.learning_rate * factor
        torch.manual_seed(_step_seed(self.batches.seed, self._epoch, self._step, self.world.rank))
        mine = windows[self.world.rank :: self.world.size]
        targets = self.batches.num_targets(windows)
        at_once = self.config.micro_batch or max(len(mine), 1)
        for begin in range(0, len(mine), at_once):
            self._loss += self._backward(mine[begin : begin + at_once], targets)
        self._targets += targets
        self._reduce_gradients()
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        if self.observer:
            self.observer.step(self._epoch + 1, targets)

    def _backward(self, windows: IntArray, targets: int) -> Tensor:
        """Gradients of a share of the batch; shares add up to the gradient of the mean over the whole batch."""
        share = self.batches.num_targets(windows) / targets
        batch = self.batches.batch(windows).to(self.world.device)
        with precision(self.config, self.world.device):
            loss = self.objective(batch)
            (loss * share).backward()  # type: ignore[no-untyped-call]
        return (loss.detach() * (share * targets)).double()

    def _reduce_gradients(self) -> None:
        """Sum the workers' gradients in one flat all-reduce."""
        if self.world.size == 1:
            return
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _finish_epoch(self) -> None:
        row: dict[str, float] = {"epoch": self._epoch + 1, "loss": self._mean_loss(), "targets": self._targets}
        self._epoch, self._step = self._epoch + 1, 0
        self._loss, self._targets = self._zero(), 0
        in_phase = self._epoch - self._phase_begin
        if self.validate and (in_phase % self.config.validate_every == 0 or self._epoch == self._phase_end()):
            row[f"valid_{self.metric}"] = value = self._validated()
            if value > self.history.best:
                self.history.best, self.history.best_epoch = value, self._epoch
                self.best = model_tensors(self.model, "")
        self.history.epochs.append(row)
        self._save()
        if self.observer:
            self.observer.epoch(row, self.folder / CHECKPOINT)

    def _zero(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.world.device)

    def _mean_loss(self) -> float:
        total = self._loss.clone()
        if self.world.size > 1:
            dist.all_reduce(total)
        return float(total) / max(self._targets, 1)

    def _validated(self) -> float:
        """Rank 0 validates; the others wait for its value, so that all stop together."""
        self.model.eval()
        value = self._zero()
        if self.world.rank == 0 and self.validate is not None:
            value += self.validate()
        if self.world.size > 1:
            dist.broadcast(value, src=0)
        return float(value)

    def _exhausted(self) -> bool:
        if self.config.patience is None or self.history.best_epoch < 0:
            return False
        patience = self.phases[self._phase].patience or self.config.patience
        waiting = self._epoch - max(self.history.best_epoch, self._phase_begin)
        return waiting >= patience * self.config.validate_every

    def _save_if_due(self) -> None:
        if self._step < self.steps_per_epoch and time.monotonic() - self._saved > self.config.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self.world.rank:
            return
        tensors = model_tensors(self.model, "model.")
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.tensors().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        best = self.history.best if self.history.best_epoch >= 0 else None
        history = vars(self.history) | {"best": best, "seconds_per_epoch": []}
        state = {
            "epoch": self._epoch,
            "step": self._step,
            "phase": [self._phase, self._phase_begin],
            "loss": float(self._loss),
            "targets": self._targets,
            "history": history,
        }
        write_checkpoint(Checkpoint(tensors, state), self.folder / CHECKPOINT)

    def _resume(self) -> None:
        checkpoint = read_checkpoint(self.folder / CHECKPOINT)
        if checkpoint is None:
            return
        load_parameters(self.model, select(checkpoint.tensors, "model."))
        self.optimizer.load(select(checkpoint.tensors, "optimizer."))
        self.best = select(checkpoint.tensors, "best.")
        history = checkpoint.state["history"]
        self.history = History(**history | {"best": -math.inf if history["best"] is None else history["best"]})
        self._epoch, self._step = checkpoint.state["epoch"], checkpoint.state["step"]
        self._phase, self._phase_begin = checkpoint.state.get("phase", [0, 0])
        self._loss, self._targets = self._loss + checkpoint.state["loss"], checkpoint.state["targets"]


def _step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Dropout of a step depends on nothing but this: a resumed run repeats it without a saved random state."""
    return int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0] >> 1)
