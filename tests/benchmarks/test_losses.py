"""The comparison of losses: a budget of time instead of epochs, and what is made of the trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.losses import LOSSES, METRIC, Budget, BudgetSpentError, Trained, summarize, train
from components.training.observer import Place
from pipelines.config import RunConfig
from tests.pipelines.run_configs import PLAIN_RUN, make_config
from tests.pipelines.test_teach_and_distill import write_prepared


class Ticking:
    """A clock that advances by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_the_budget_counts_steps_and_nothing_between_epochs() -> None:
    clock = Ticking()
    budget = Budget(3.0, clock)
    clock.now += 100  # building the model
    budget.begin(Place(epochs=9, epoch=0, step=0, targets=90, done=0))
    budget.step(1, 4)
    budget.step(1, 4)
    clock.now += 100  # validation
    budget.epoch({}, Path())
    with pytest.raises(BudgetSpentError):
        budget.step(2, 4)
    assert (budget.spent, budget.targets) == (3.0, 12)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    content = {
        **PLAIN_RUN,
        "student": {"kind": "sasrec", "dim": 8, "inner_dim": 8, "max_length": 6, "num_negatives": 4},
    }
    made = make_config(tmp_path, content, "training.batch_size=16", "training.patience=1", "training.schedule=cosine")
    write_prepared(made.folder / "prepare")
    return made


@pytest.mark.parametrize("loss", LOSSES)
def test_a_student_trains_until_its_budget_is_spent(loss: str, config: RunConfig, tmp_path: Path) -> None:
    """60 users in batches of 16 are 4 steps an epoch, of a second each by this clock: 5 whole epochs and 2 steps."""
    found = train(config, loss, 0, Budget(22.0, Ticking()), tmp_path / "work")
    assert found.epochs == 5
    assert 1 <= found.best_epoch <= 5
    assert found.values.shape == (60,)
    assert found.values.mean() > 0
    assert found.rate > 0


def test_a_budget_below_one_epoch_says_so(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"softmax: 2 s did not suffice for one epoch; give more --seconds"):
        train(config, "softmax", 0, Budget(2.0, Ticking()), tmp_path / "work")


def test_the_first_loss_is_what_others_are_compared_with() -> None:
    better = np.linspace(0.2, 0.6, 20)
    found = {
        "softmax": [Trained(better - 0.1, 3, 2, 10.0), Trained(better - 0.1, 5, 4, 30.0)],
        "bpr": [Trained(better, 9, 9, 40.0), Trained(better - 0.02, 9, 9, 40.0)],
    }
    first, second = summarize(found)
    assert "gain" not in first
    assert first["targets_per_cpu_second"] == 20.0
    assert second[METRIC] == pytest.approx(0.39)
    assert second["gain"] == pytest.approx(0.39 / 0.3 - 1)
    assert second["p_value"] < 1e-6
    assert (first["epochs"], second["by_seed"]) == ([3, 5], pytest.approx([0.4, 0.38]))
