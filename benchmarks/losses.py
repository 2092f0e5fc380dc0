"""Which loss makes the best plain student out of the same computing time?

    python -m benchmarks.losses configs/scientific.yaml --json FILE
    python -m benchmarks.losses configs/scientific.yaml student.num_negatives=64 --seconds 120 --losses softmax gbce

The configuration's student, without teachers, trained with each loss on one thread until its training steps have taken
``--seconds`` of CPU time; validation, checkpoints and the build of the model do not count. An epoch with a cheap loss
takes less time, so it gets more of them. The best validated epoch is tested, all items ranked. Losses take turns, seed
by seed; the t-test against the first loss is paired over users, whose metric is first averaged over seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.teachers import distilrec
from components.evaluation.metrics import metric_values
from components.evaluation.ranking import target_positions
from components.evaluation.significance import paired_test, seed_mean
from components.evaluation.validation import validation_metric
from components.training.checkpoints import load_parameters
from components.training.loop import Trainer
from components.training.observer import Place
from pipelines.config import RunConfig
from pipelines.load_config import load_config
from pipelines.training_job import METRIC, Built, TrainingJob, build

LOSSES: Final = ("softmax", "sampled-softmax", "gbce", "bce", "bpr")
ENDLESS: Final = 1_000_000  # epochs; the budget ends training
Clock = Callable[[], float]


class BudgetSpentError(Exception):
    """The budget is used up."""


class Budget:
    """An observer of the training loop that ends it when its steps have taken `seconds`.

    Args:
        seconds: how long steps may take in all.
        clock: CPU time of this process; tests bring their own.
    """

    def __init__(self, seconds: float, clock: Clock = time.process_time) -> None:
        self.seconds, self.clock = seconds, clock
        self.spent, self.targets, self._since = 0.0, 0, clock()

    def begin(self, place: Place) -> None:
        self._since = self.clock()

    def step(self, epoch: int, targets: int) -> None:
        now = self.clock()
        self.spent, self.targets, self._since = self.spent + now - self._since, self.targets + targets, now
        if self.spent >= self.seconds:
            raise BudgetSpentError

    def epoch(self, row: dict[str, float], checkpoint: Path) -> None:
        self._since = self.clock()  # validation and the checkpoint lie between the last step and this


@dataclass(frozen=True)
class Trained:
    """One student.

    Attributes:
        values: (users,) test metric.
        epochs: whole epochs within the budget.
        best_epoch: the one that was tested.
        rate: targets per CPU-second of the steps.
    """

    values: NDArray[np.float64]
    epochs: int
    best_epoch: int
    rate: float


def train(config: RunConfig, loss: str, seed: int, budget: Budget, folder: Path) -> Trained:
    """Train the student of `config` with `loss` until the budget is spent, and test its best epoch."""
    endless = {"epochs": ENDLESS, "patience": None, "schedule": "constant", "checkpoint_seconds": float(ENDLESS)}
    training = config.training.model_copy(update=endless)
    job = TrainingJob(
        kind=config.student.kind,
        family="student",
        arguments={**config.student.arguments, "loss": loss},
        training=training,
        seed=seed,
        prepared=config.folder / "prepare",
        folder=folder,
        work=folder,
        mask_history=config.evaluate.mask_history,
    )
    built = build(job)
    batches = built.model.training_batches(built.prepared.sequences, training.batch_size, training.windows, seed)
    trainer = Trainer(
        built.model,
        batches,
        training,
        objective=built.model.loss,
        validate=lambda: validated(built, config),
        folder=folder,
        observer=budget,
        metric=METRIC,
    )
    with contextlib.suppress(BudgetSpentError):
        trainer.fit()
    if not trainer.best:
        raise SystemExit(f"{loss}: {budget.seconds:g} s did not suffice for one epoch; give more --seconds")
    load_parameters(built.model, trainer.best)
    cases = built.prepared.sequences.cases("test")
    positions = target_positions(built.model.eval(), cases, mask_history=config.evaluate.mask_history)
    history = trainer.history
    rate = budget.targets / budget.spent
    return Trained(metric_values(positions, METRIC), len(history.epochs), history.best_epoch, rate)


def validated(built: Built, config: RunConfig) -> float:
    """The validation metric, as a run measures it."""
    return validation_metric(
        built.model,
        built.prepared.sequences.cases("valid"),
        METRIC,
        max_users=config.training.validation_users,
        mask_history=config.evaluate.mask_history,
    )


def summarize(found: dict[str, list[Trained]]) -> list[dict[str, Any]]:
    """One row per loss: means over seeds and, from the second on, gain over the first and its p-value."""
    values = {loss: seed_mean([one.values for one in trained]) for loss, trained in found.items()}
    base, rows = next(iter(values)), []
    for loss, trained in found.items():
        row: dict[str, Any] = {
            "loss": loss,
            METRIC: float(values[loss].mean()),
            "by_seed": [float(one.values.mean()) for one in trained],
            "epochs": [one.epochs for one in trained],
            "best_epochs": [one.best_epoch for one in trained],
            "targets_per_cpu_second": float(np.mean([one.rate for one in trained])),
        }
        if loss != base:
            row["gain"] = row[METRIC] / float(values[base].mean()) - 1
            row["p_value"] = float(paired_test(values[loss], values[base]))
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(
        "loss", METRIC, "by seed", "epochs", "targets / CPU-s", f"against {rows[0]['loss']}", "p", title=title
    )
    for row in rows:
        gain = (f"{row['gain']:+.1%}", f"{row['p_value']:.2g}") if "gain" in row else ("", "")
        seeds = ", ".join(f"{value:.4f}" for value in row["by_seed"])
        epochs = ", ".join(map(str, row["epochs"]))
        table.add_row(row["loss"], f"{row[METRIC]:.4f}", seeds, epochs, f"{row['targets_per_cpu_second']:,.0f}", *gain)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--seconds", type=float, default=300.0, help="CPU-seconds of each training; default: 300")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--json", type=Path, help="write the figures to this file, again after every training")
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.overrides)
    distilrec("prepare", str(options.config), *options.overrides)
    torch.set_num_threads(1)
    found: dict[str, list[Trained]] = {loss: [] for loss in options.losses}
    for seed in options.seeds:
        for loss in options.losses:
            with tempfile.TemporaryDirectory() as folder:
                found[loss].append(train(config, loss, seed, Budget(options.seconds), Path(folder)))
            print(f"{loss}, seed {seed}: {found[loss][-1].values.mean():.4f}", flush=True)
            if options.json:
                finished = summarize({name: trained for name, trained in found.items() if trained})
                document = {"config": str(options.config), "seconds": options.seconds, "rows": finished}
                options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    show(summarize(found), f"{config.name}, {config.student.kind}, {options.seconds:g} CPU-seconds each")


if __name__ == "__main__":
    main()
