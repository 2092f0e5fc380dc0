from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from components.data.batching import TrainingBatches
from components.errors import ArtifactError
from components.model import Catalog, Ranker
from components.students import STUDENTS
from components.training.checkpoints import TENSORS, read_checkpoint
from components.training.config import TrainingConfig
from components.training.loop import Trainer, World, learning_rate_factor, precision
from components.training.seeds import seed_everything
from tests.kills import KillAt, KilledError
from tests.worlds import random_sequences

ITEMS = 12


def student(**arguments: object) -> Ranker:
    seed_everything(0)
    catalog = Catalog(ITEMS, 40, np.zeros(ITEMS + 1, np.int64))
    return STUDENTS["sasrec"].make(catalog, {"dim": 16, "inner_dim": 16, "max_length": 6, **arguments})


def trainer(
    model: Ranker, folder: Path, validate: Callable[[], float] | None = None, observer: object = None, **config: object
) -> Trainer:
    batches = TrainingBatches(random_sequences(40, ITEMS, 9, cyclic=0.9), 6, 8, "all")
    settings = TrainingConfig.model_validate({"epochs": 4, "learning_rate": 0.01, **config})
    return Trainer(
        model,
        batches,
        settings,
        objective=model.loss,
        validate=validate,
        folder=folder,
        observer=observer,  # type: ignore[arg-type]
    )


def test_learns_the_planted_succession(tmp_path: Path) -> None:
    model = student(dropout=0.0)
    history = trainer(model, tmp_path, epochs=20).fit()
    assert history.epochs[-1]["loss"] < 0.5 * history.epochs[0]["loss"]


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    whole, cut = student(dropout=0.0), student(dropout=0.0)
    expected = trainer(whole, tmp_path / "whole", epochs=2).fit()
    found = trainer(cut, tmp_path / "cut", epochs=2, micro_batch=3).fit()
    assert found.epochs[1]["loss"] == pytest.approx(expected.epochs[1]["loss"], rel=1e-5)
    for one, other in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)  # Adam blows rounding up where a gradient is 0


@pytest.mark.parametrize("step", [3, 8, 17])
def test_resumes_after_a_kill_to_the_same_bits(step: int, tmp_path: Path) -> None:
    def metric(model: Ranker) -> Callable[[], float]:
        return lambda: float(next(model.parameters()).detach().abs().sum())

    whole = student()
    expected = trainer(whole, tmp_path / "whole", metric(whole)).fit()
    first = student()
    with pytest.raises(KilledError):
        trainer(first, tmp_path / "cut", metric(first), KillAt(step), checkpoint_seconds=0.0).fit()
    resumed = student()
    found = trainer(resumed, tmp_path / "cut", metric(resumed)).fit()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert found.epochs == expected.epochs


@pytest.mark.parametrize(
    ("step", "place", "said"),
    [
        (1, (4, 0, 0, 0), ""),  # killed before its first checkpoint
        (9, (4, 1, 3, 8), "resumed at epoch 2, step 4"),
        (11, (4, 2, 0, 10), "resumed at epoch 3, step 1"),
    ],
)
def test_the_observer_is_told_where_a_killed_run_goes_on(
    step: int, place: tuple[int, int, int, int], said: str, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        trainer(student(), tmp_path, observer=KillAt(step), checkpoint_seconds=0.0).fit()
    observer = KillAt()
    loop = trainer(student(), tmp_path, observer=observer)
    loop.fit()
    assert loop.steps_per_epoch == 5
    begun = observer.begun
    assert begun is not None
    assert (begun.epochs, begun.epoch, begun.step) == place[:3]
    plans = [loop.batches.num_targets(windows) for epoch in range(4) for windows in loop.batches.epoch(epoch)]
    assert begun.done == sum(plans[: place[3]])
    assert begun.describe() == said


def test_the_observer_of_a_finished_run_is_told_that_nothing_is_left(tmp_path: Path) -> None:
    trainer(student(), tmp_path).fit()
    observer = KillAt(1)
    trainer(student(), tmp_path, observer=observer).fit()
    assert observer.begun is not None
    assert observer.begun.describe() == "resumed behind the last epoch"


def test_best_parameters_are_kept_not_the_last(tmp_path: Path) -> None:
    """S13."""
    model, values, seen = student(), iter([0.1, 0.3, 0.2, 0.1]), []

    def validate() -> float:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(values)

    history = trainer(model, tmp_path, validate).fit()
    assert (history.best_epoch, history.best) == (2, 0.3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, seen[1][name]), name


def test_patience_stops(tmp_path: Path) -> None:
    values = iter([0.5] + [0.4] * 50)
    history = trainer(student(), tmp_path, lambda: next(values), epochs=50, patience=3).fit()
    assert len(history.epochs) == 4


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    trainer(student(), tmp_path).fit()
    again = student()
    with_kill = trainer(again, tmp_path, observer=KillAt(1))
    assert len(with_kill.fit().epochs) == 4


def test_damaged_checkpoint_names_the_file(tmp_path: Path) -> None:
    trainer(student(), tmp_path).fit()
    file = tmp_path / "checkpoint" / TENSORS
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"tensors\.safetensors: damaged checkpoint"):
        read_checkpoint(tmp_path / "checkpoint")


def test_kill_between_the_two_renames_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    trainer(student(), tmp_path, epochs=1).fit()
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.previous")
    found = read_checkpoint(tmp_path / "checkpoint")
    assert found is not None
    assert found.state["epoch"] == 1


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [("constant", 50, 1.0), ("linear", 60, 0.5), ("cosine", 60, 0.5), ("linear", 9, 0.5)],
)
def test_learning_rate(schedule: str, step: int, expected: float) -> None:
    config = TrainingConfig.model_validate({"schedule": schedule, "warmup_steps": 20})
    assert learning_rate_factor(config, step, 100) == pytest.approx(expected)


def test_bf16_products_on_a_cpu_are_close_and_the_setting_is_put_back() -> None:
    config = TrainingConfig(precision="bf16")
    a, b = torch.randn(64, 64), torch.randn(64, 64)
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    with precision(config, torch.device("cpu")):
        rounded = a @ b
    assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]
    torch.testing.assert_close(rounded, a @ b, atol=0.3, rtol=0.05)


def _worker(rank: int, size: int, folder: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    model = student(dropout=0.0)
    batches = TrainingBatches(random_sequences(40, ITEMS, 9, cyclic=0.9), 6, 8, "all")
    config = TrainingConfig(epochs=3, learning_rate=0.01)
    run = Trainer(
        model,
        batches,
        config,
        objective=model.loss,
        validate=None,
        folder=Path(folder) / f"w{size}",
        world=World(rank, size),
    )
    history = run.fit()
    if rank == 0:
        Path(out).write_text(json.dumps(history.epochs))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_train_like_one(tmp_path: Path) -> None:
    """The shares of the workers' gradients add up to the gradient of the whole batch, unequal lengths included."""
    mp.spawn(_worker, args=(2, str(tmp_path), str(tmp_path / "two.json")), nprocs=2)
    alone = student(dropout=0.0)
    expected = trainer(alone, tmp_path / "one", epochs=3).fit().epochs
    found = json.loads((tmp_path / "two.json").read_text())
    assert [row["targets"] for row in found] == [row["targets"] for row in expected]
    for a, b in zip(found, expected, strict=True):
        assert math.isclose(a["loss"], b["loss"], rel_tol=1e-4)
