from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.artifacts.models import load_model, save_model
from components.data.batching import PrefixBatches, history_batch
from components.evaluation.validation import validation_metric
from components.model import Catalog
from components.teachers.recformer.model import Recformer, RecformerConfig, build
from components.teachers.recformer.tokens import tokenize_items
from components.training.config import TrainingConfig
from components.training.loop import History, Trainer, World
from components.training.seeds import seed_everything
from tests.components.teachers.worlds import COLORS, planted
from tests.kills import KillAt, KilledError

SEQUENCES, CATALOG = planted()


class Watch(KillAt):
    """Copies of the item matrix at every step, by epoch; may kill."""

    def __init__(self, model: Recformer, kill_at: int = -1) -> None:
        super().__init__(kill_at)
        self.model = model
        self.matrices: dict[int, list[Tensor]] = {}

    def step(self, epoch: int, targets: int) -> None:
        self.matrices.setdefault(epoch, []).append(self.model.matrix.clone())
        super().step(epoch, targets)


def make(bert: str, catalog: Catalog = CATALOG, **arguments: Any) -> Recformer:
    seed_everything(0)
    return build(catalog, RecformerConfig(**{"backbone": bert, "max_length": 8, **arguments}))


def trainer(
    model: Recformer,
    folder: Path,
    validate: Callable[[], float] | None = None,
    watch: Watch | None = None,
    world: World | None = None,
    **config: Any,
) -> Trainer:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 16, "optimizer": "adamw", "learning_rate": 5e-3, **config}
    return Trainer(
        model,
        model.training_batches(SEQUENCES, settings["batch_size"], "last", 0),
        TrainingConfig.model_validate(settings),
        objective=model.loss,
        validate=validate,
        folder=folder,
        world=world,
        observer=watch,
        phases=model.phases(),
    )


def scripted(values: list[float]) -> Callable[[], float]:
    """A validation that gives one value after the other, then the last."""
    left = list(values)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_the_matrix_changes_before_each_epoch_of_stage_one_and_never_in_stage_two(bert: str, tmp_path: Path) -> None:
    """Check T7."""
    model = make(bert, second_stage_epochs=2)
    watch = Watch(model)
    history = trainer(model, tmp_path, scripted([0.1, 0.3, 0.2, 0.1]), watch).fit()
    assert [len(watch.matrices[epoch]) for epoch in (1, 2, 3, 4, 5)] == [3] * 5
    for epoch in (1, 2, 3, 4, 5):
        assert all(torch.equal(matrix, watch.matrices[epoch][0]) for matrix in watch.matrices[epoch])
    first, best, third, fourth, fifth = (watch.matrices[epoch][0] for epoch in (1, 2, 3, 4, 5))
    assert not torch.equal(first, best)
    assert not torch.equal(best, third)
    assert torch.equal(fourth, best)  # stage two begins from the best model and its matrix
    assert torch.equal(fifth, best)
    assert history.best_epoch == 2
    assert torch.equal(model.matrix, best)
    assert watch.begun is not None
    assert watch.begun.epochs == 5


def test_the_matrix_of_an_epoch_is_that_of_the_weights_before_it(bert: str, tmp_path: Path) -> None:
    model = make(bert)
    untrained = model.item_vectors()[1:].clone()
    watch = Watch(model)
    trainer(model, tmp_path, None, watch, epochs=1).fit()
    assert torch.equal(watch.matrices[1][0], untrained)


def test_stage_two_begins_from_the_best_weights(bert: str, tmp_path: Path) -> None:
    model = make(bert, second_stage_epochs=1)
    weights: list[Tensor] = []
    values = scripted([0.5, 0.4, 0.3, 0.2])

    def validate() -> float:
        weights.append(model.backbone.layers[0].inner.weight.detach().clone())  # type: ignore[union-attr]
        return values()

    trainer(model, tmp_path, validate, learning_rate=1e-9, weight_decay=0.0).fit()
    assert len(weights) == 4
    assert torch.equal(model.backbone.layers[0].inner.weight, weights[0])  # type: ignore[union-attr]
    torch.testing.assert_close(weights[3], weights[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("values", "every", "expected"),
    [
        ([0.1], 1, 1 + 2 + 3),  # no gain: patience 2 ends stage one, 3 stage two
        ([0.1, 0.2, 0.1, 0.1, 0.3, 0.1], 1, 4 + 1 + 3),  # a gain in stage two counts anew
        ([0.1], 2, 2 + 4 + 6),
    ],
)
def test_each_stage_has_its_patience(values: list[float], every: int, expected: int, bert: str, tmp_path: Path) -> None:
    model = make(bert, num_layers=1)
    run = trainer(model, tmp_path, scripted(values), epochs=30, patience=2, validate_every=every)
    assert len(run.fit().epochs) == expected


def test_the_better_of_both_stages_stays(bert: str, tmp_path: Path) -> None:
    model = make(bert, num_layers=1, second_stage_epochs=2)
    history = trainer(model, tmp_path, scripted([0.1, 0.2, 0.1, 0.3, 0.1])).fit()
    assert (history.best_epoch, history.best) == (4, 0.3)


def test_the_learning_rate_decays_over_both_stages(bert: str, tmp_path: Path) -> None:
    model = make(bert, num_layers=1, second_stage_epochs=1)
    run = trainer(model, tmp_path, scripted([0.1]), epochs=2, schedule="linear")
    run.fit()
    assert run.optimizer.learning_rate == pytest.approx(5e-3 / 9)  # the last of 9 steps


@pytest.mark.parametrize("step", [2, 5, 9, 11, 15])
def test_resumes_after_a_kill_to_the_same_bits(step: int, bert: str, tmp_path: Path) -> None:
    """Kills in the middle of both stages, and after the last step of stage one."""

    def run(folder: Path, kill_at: int = -1) -> tuple[Recformer, History]:
        model = make(bert, second_stage_epochs=2)

        @torch.no_grad()
        def validate() -> float:
            return float(-model.matrix.abs().sum() - model.backbone.layers[0].inner.weight.sum())  # type: ignore[union-attr,operator]

        watch = Watch(model, kill_at)
        history = trainer(model, folder, validate, watch, checkpoint_seconds=0, schedule="linear").fit()
        return model, history

    expected, straight = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", step)
    found, history = run(tmp_path / "killed")
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    assert history.epochs == straight.epochs
    assert history.best == straight.best > -math.inf


STILL: dict[str, Any] = {
    "precision": "fp32",
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "second_stage_epochs": 1,
    "max_length": 8,
}


def shared_training(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = load_model(folder)  # a worker that is spawned need not import a library of language models
    assert isinstance(model, Recformer)
    model.matrix.zero_()
    trainer(model, folder / str(rank), None, world=World(rank, 2), epochs=2, learning_rate=1e-3).fit()
    save_file({"matrix": model.matrix}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


def test_two_workers_share_the_work(bert: str, tmp_path: Path) -> None:
    alone = make(bert, num_layers=1, **STILL)
    save_model(alone, tmp_path, kind="recformer", family="teacher", arguments=STILL, catalog=CATALOG)
    mp.spawn(shared_training, (tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]
    trainer(alone, tmp_path / "alone", None, epochs=2, learning_rate=1e-3).fit()
    first, second = (load_file(tmp_path / f"{rank}.safetensors")["matrix"] for rank in (0, 1))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone.matrix, rtol=1e-3, atol=1e-3)


def test_items_are_encoded_in_the_precision_of_training(bert: str, tmp_path: Path) -> None:
    class Watched(Recformer):
        def refresh(self, rank: int = 0, size: int = 1) -> None:
            used.append(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]
            super().refresh(rank, size)

    used: list[str] = []
    model = make(bert, num_layers=1)
    model.__class__ = Watched
    trainer(model, tmp_path / "bf16", None, epochs=1, precision="bf16").fit()
    assert used == ["bf16"]


# The plan of an epoch


def test_an_epoch_draws_one_target_of_each_user() -> None:
    batches = PrefixBatches(SEQUENCES, 8, 16)
    seen = set()
    for epoch in range(60):
        plan = batches.epoch(epoch)
        assert [len(windows) for windows in plan if len(windows) == 16] == [16, 16]
        assert sorted(np.concatenate(plan)[:, 0]) == list(range(40))
        seen |= {(int(row), int(first + size)) for row, first, size in np.concatenate(plan)}
        assert all((a == b).all() for a, b in zip(plan, batches.epoch(epoch), strict=True))
    assert seen == {(row, target) for row in range(40) for target in range(int(SEQUENCES.train_end[row]))}


def test_a_batch_holds_the_history_before_each_target() -> None:
    batches = PrefixBatches(SEQUENCES, 3, 40)
    windows = batches.epoch(1)[0]
    batch = batches.batch(windows)
    assert batches.num_targets(windows) == len(batch.targets) == 40
    for place, (row, first, size) in enumerate(windows):
        items = SEQUENCES.training_items(row)
        history = items[max(0, first + size - 3) : first + size].tolist()
        assert batch.items[place, : max(size, 1)].tolist() == (history or [0])
        assert batch.targets[place] == items[first + size]
        assert batch.positions[place] == place * batch.items.shape[1] + max(size, 1) - 1


def test_pretraining_draws_from_the_second_half() -> None:
    batches = PrefixBatches(SEQUENCES, 8, 16, second_half=True)
    drawn = np.concatenate([windows for epoch in range(60) for windows in batches.epoch(epoch)])
    targets = drawn[:, 1] + drawn[:, 2]
    lengths = SEQUENCES.train_end[drawn[:, 0]]
    assert (targets >= (lengths - 1) // 2).all()
    assert (targets < lengths).all()
    assert {(n, int(t)) for n, t in zip(lengths, targets, strict=True) if n == 6} == {(6, t) for t in (2, 3, 4, 5)}


# A planted signal: the text tells the taste


def learned(bert: str, folder: Path, catalog: Catalog) -> Recformer:
    model = make(bert, catalog, dropout=0.0, attention_dropout=0.0, freeze_words=False)
    cases = SEQUENCES.cases("valid")
    trainer(model, folder, lambda: validation_metric(model, cases), epochs=25, validate_every=5, patience=5).fit()
    return model.eval()


def share_of_own_taste(model: Recformer, bert: str, titles: list[str]) -> float:
    """Of the five best items for histories of items that training never saw, how many have the history's taste."""
    from transformers import AutoTokenizer

    model.set_items(tokenize_items({"title": titles}, AutoTokenizer.from_pretrained(bert)))
    histories = [[taste + 1 + 4 * place for place in range(3)] for taste in range(4)]
    items, _ = model.top_k(history_batch(histories, 8), 5)
    return float(((items - 1) % 4 == torch.arange(4)[:, None]).float().mean())


def test_it_reads_the_taste_of_items_that_it_never_saw(bert: str, tmp_path: Path) -> None:
    new = [f"{COLORS[item % 4]} {'abcdef'[item // 4]}" for item in range(24)]
    shuffled = list(np.random.default_rng(4).permutation(new))
    model = learned(bert, tmp_path / "told", CATALOG)
    assert share_of_own_taste(model, bert, new) > 0.8
    assert share_of_own_taste(model, bert, shuffled) < 0.5
    titles = CATALOG.attributes["title"]  # type: ignore[index]
    blind = replace(CATALOG, attributes={"title": list(np.random.default_rng(5).permutation(titles))})
    assert share_of_own_taste(learned(bert, tmp_path / "untold", blind), bert, new) < 0.6
