from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from components.data.batching import Batch, PrefixBatches, TrainingBatches, history_batch
from components.distillation.config import DistillationConfig
from components.distillation.distiller import Distiller
from components.distillation.teacher_scores import TeacherCache
from components.inference import Scorer
from components.model import Catalog
from components.schema import PAD
from components.students import STUDENTS, bert4rec
from components.students.bert4rec import BERT4Rec, hide, windows
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from tests.kills import KillAt, KilledError
from tests.worlds import random_sequences, sequences

ITEMS = 12
SMALL = {"dim": 16, "inner_dim": 32, "num_layers": 2, "max_length": 8}


def make(num_items: int = ITEMS, **arguments: object) -> BERT4Rec:
    torch.manual_seed(0)
    catalog = Catalog(num_items, 5, np.zeros(num_items + 1, np.int64))
    model = STUDENTS["bert4rec"].make(catalog, {**SMALL, **arguments})
    assert isinstance(model, BERT4Rec)
    return model


def training_batch(cyclic: float = 0.0, max_length: int = 8) -> Batch:
    batches = TrainingBatches(random_sequences(20, ITEMS, 12, cyclic=cyclic), max_length, 20)
    return batches.batch(batches.epoch(0)[0])


def all_positions(history: list[int]) -> Batch:
    batch = history_batch([history], len(history))
    every = torch.arange(len(history))
    return replace(batch, positions=every, instances=every)


def test_parameter_count_of_the_specification() -> None:
    """students.md, 11.2: (N + 2) D + 51 D + 2 D + layers + (D^2 + D) + 2 D + (N + 1)."""
    parts = make(100, dim=300, inner_dim=256, max_length=50).parameter_parts()
    layers = 2 * ((4 * 300 * 300 + 4 * 300) + (2 * 300 * 256 + 256 + 300) + 4 * 300)
    assert parts["embedding"] == 102 * 300
    assert parts["head"] == 101
    assert parts["total"] == 102 * 300 + 53 * 300 + layers + (300 * 300 + 300) + 600 + 101


# Cloze


@pytest.mark.parametrize("probability", [0.05, 0.2, 0.6])
def test_each_item_is_hidden_with_the_probability_and_padding_never(probability: float) -> None:
    torch.manual_seed(0)
    items = torch.ones(400, 100, dtype=torch.int64)
    items[:, 60:] = PAD
    hidden = hide(items, probability)
    assert not hidden[:, 60:].any()
    assert hidden[:, :60].float().mean().item() == pytest.approx(probability, abs=0.01)
    by_position = hidden[:, :60].float().mean(0)
    torch.testing.assert_close(by_position, torch.full((60,), probability), atol=0.1, rtol=0)


def test_without_masks_there_is_no_loss_term() -> None:
    """S8."""
    model = make(mask_probability=0.0, mask_last=False)
    loss = model.loss(training_batch())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


def test_a_hidden_item_does_not_show_and_its_successors_do() -> None:
    model = make().eval()
    masked = torch.tensor([[False, True, False, False]])
    states = model._cloze(torch.tensor([[3, 7, 5, 9]]), masked)
    torch.testing.assert_close(model._cloze(torch.tensor([[3, 1, 5, 9]]), masked), states, rtol=0, atol=0)
    for other in ([4, 7, 5, 9], [3, 7, 6, 9], [3, 7, 5, 10]):
        assert not torch.allclose(model._cloze(torch.tensor([other]), masked), states, atol=1e-4)


def test_padding_of_a_window_does_not_show() -> None:
    model = make().eval()
    masked = torch.tensor([[False, True, False]])
    wide, also = torch.tensor([[3, 7, 5, PAD, PAD]]), torch.tensor([[False, True, False, False, False]])
    torch.testing.assert_close(model._cloze(wide, also), model._cloze(wide[:, :3], masked))


def test_windows_hold_every_training_item_and_not_the_held_out() -> None:
    data = random_sequences(20, ITEMS, 9)
    batches = TrainingBatches(data, 10, 20)
    plan = batches.epoch(0)[0]
    items, last = windows(batches.batch(plan))
    for (row, *_), window in zip(plan.tolist(), items.tolist(), strict=True):
        training = data.training_items(row).tolist()
        assert window == training + [PAD] * (len(window) - len(training))
    assert last.tolist() == (np.cumsum(plan[:, 2]) - 1).tolist()


def test_a_window_after_an_empty_history_is_its_target() -> None:
    batches = PrefixBatches(sequences([[5, 6, 7, 8], [9, 10, 11]]), 4, 2)
    items, _ = windows(batches.batch(np.array([[0, 0, 0], [1, 0, 0]])))
    assert items.tolist() == [[5, 0], [9, 0]]


def test_the_loss_is_that_of_hidden_items_and_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make().eval(), training_batch()
    items, last = windows(batch)
    masked = (items != PAD) & (torch.arange(items.shape[1]) % 3 == 1)
    monkeypatch.setattr(bert4rec, "hide", lambda items, probability: masked)
    logits, targets = [], []
    for window, hidden in zip(items, masked, strict=True):
        size = int((window != PAD).sum())
        seen = window[:size].masked_fill(hidden[:size], ITEMS + 1)
        x = model.item_embedding(seen[None])
        states = model.output(model.network(x, torch.arange(size), False, torch.tensor([size])))
        logits.append(model.head.block(states[hidden[:size]], 1, ITEMS + 1))
        targets.append(window[hidden])
    logits.append(model.all_scores(replace(batch, positions=batch.positions[last]))[:, 1:])
    targets.append(batch.targets[last])
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(targets) - 1)
    torch.testing.assert_close(model.loss(batch), expected)
    assert model.loss(batch).item() != pytest.approx(make(mask_last=False).eval().loss(batch).item(), rel=1e-4)


def test_the_seed_decides_the_masks() -> None:
    model, batch = make().eval(), training_batch()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model.loss(batch).item())
    assert losses[0] == losses[1] != losses[2]


# States


def test_the_state_of_a_position_sees_its_history_and_not_what_follows() -> None:
    model = make().eval()
    states = model.states(all_positions([1, 2, 3, 4, 5]))
    torch.testing.assert_close(model.states(all_positions([1, 2, 3, 9, 9]))[:3], states[:3], rtol=0, atol=0)
    for place in range(3):
        changed = [1, 2, 3, 4, 5]
        changed[place] = 8
        assert not torch.allclose(model.states(all_positions(changed))[2], states[2], atol=1e-4)


def test_a_history_keeps_its_last_items_beside_the_mask() -> None:
    model = make(max_length=4).eval()
    scores = model.all_scores(history_batch([[9, 8, 5, 6, 7]], 9))
    torch.testing.assert_close(model.all_scores(history_batch([[5, 6, 7]], 9)), scores)
    assert not torch.allclose(model.all_scores(history_batch([[6, 7]], 9)), scores, atol=1e-4)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_state_at_the_mask_is_that_of_the_full_pass(norm: str) -> None:
    model = make(norm=norm).eval()
    histories = [[3, 1, 2], [4]]
    whole = [model._cloze(torch.tensor([[*h, 1]]), torch.tensor([[False] * len(h) + [True]])) for h in histories]
    torch.testing.assert_close(model.states(history_batch(histories, 8)), torch.cat(whole))


def test_the_mask_is_never_recommended() -> None:
    """S8; even where its vector would win against every item."""
    model = make().eval()
    batch = history_batch([[1, 2], [3], []], 8)
    with torch.no_grad():
        model.item_embedding.mask.copy_(100 * model.states(batch)[0])
    assert model.all_scores(batch).shape == (3, ITEMS + 1)
    items, scores = model.top_k(batch, ITEMS + 2)
    assert items.shape == (3, ITEMS)
    assert items.min() >= 1
    assert items.max() <= ITEMS
    assert scores.isfinite().all()
    histories = [np.array(history, dtype=np.int32) for history in ([1, 2], [3], [])]
    served, _ = Scorer(model).top_k(histories, ITEMS + 2, exclude_seen=False)
    assert served.max() <= ITEMS


def gradients(model: BERT4Rec, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(4)
    loss = model.head.loss(model.states(batch), batch.targets)
    parameters = list(model.parameters())
    return loss.detach(), list(torch.autograd.grad(loss, parameters))


def test_passes_over_groups_of_prefixes_add_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(dropout=0.0).train(), training_batch()
    expected = gradients(model, batch)
    monkeypatch.setitem(bert4rec.TOKENS, "cpu", 40)
    torch.testing.assert_close(gradients(model, batch), expected)


def test_what_is_computed_again_drops_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(dropout=0.3).train(), training_batch()
    monkeypatch.setitem(bert4rec.TOKENS, "cpu", 40)
    found = gradients(model, batch)
    monkeypatch.setattr(bert4rec, "recomputed", lambda run, parameters, *inputs: run(*inputs))
    torch.testing.assert_close(found, gradients(model, batch), rtol=0, atol=0)


def test_memory_for_gradients_does_not_grow_with_the_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(tokens: int) -> int:
        monkeypatch.setitem(bert4rec.TOKENS, "cpu", tokens)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model.states(batch)
        return sum(sizes)

    model, batch = make().train(), training_batch()
    assert kept(40) < 0.1 * kept(2**20)


# Training


def train(folder: Path, cyclic: float, **config: object) -> tuple[BERT4Rec, float]:
    """A trained model, and the share of users whose held-out item it ranks first."""
    data = random_sequences(150, ITEMS, 10, cyclic=cyclic)
    model = make(dropout=0.0, num_layers=1)
    settings = TrainingConfig.model_validate({"epochs": 30, "batch_size": 32, "learning_rate": 0.01, **config})
    batches = model.training_batches(data, 32, "last", 0)
    Trainer(model, batches, settings, objective=model.loss, validate=None, folder=folder).fit()
    return model, float((Scorer(model).positions(data.cases("test")) == 1).mean())


def test_finds_a_planted_succession_and_none_in_noise(tmp_path: Path) -> None:
    assert train(tmp_path / "planted", cyclic=0.9)[1] > 0.7
    assert train(tmp_path / "control", cyclic=0.0)[1] < 0.2


@pytest.mark.parametrize("step", [2, 7])
def test_a_resumed_run_hides_the_same_items(step: int, tmp_path: Path) -> None:
    def trainer(folder: str, observer: KillAt | None = None) -> tuple[BERT4Rec, Trainer]:
        model = make()
        settings = TrainingConfig(epochs=3, batch_size=8, learning_rate=0.01, checkpoint_seconds=0.0)
        batches = model.training_batches(random_sequences(24, ITEMS, 9), 8, "all", 0)
        loop = Trainer(
            model,
            batches,
            settings,
            objective=model.loss,
            validate=None,
            folder=tmp_path / folder,
            observer=observer,
        )
        return model, loop

    whole, loop = trainer("whole")
    expected = loop.fit()
    with pytest.raises(KilledError):
        trainer("cut", KillAt(step))[1].fit()
    torch.rand(5)  # whatever the new process drew before
    resumed, loop = trainer("cut")
    assert loop.fit().epochs == expected.epochs
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_distillation_teaches_the_last_item_of_every_prefix() -> None:
    model, batch = make(dropout=0.0), training_batch(cyclic=0.9)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(int(batch.instances.max()) + 1, 4, generator=generator)
    cache = TeacherCache([states], [torch.randn(ITEMS + 1, 4, generator=generator)], [1.0])
    alone = Distiller(model, cache, ["noise"], [1.0], DistillationConfig(weight=0.0))
    torch.testing.assert_close(alone(batch), model.head.loss(model.states(batch), batch.targets), rtol=0, atol=0)
    taught = Distiller(model, cache, ["noise"], [1.0], DistillationConfig(weight=0.5))
    loss = taught(batch)
    loss.backward()
    assert loss.item() > alone(batch).item()
    assert model.item_embedding.mask.grad is not None
    assert model.item_embedding.mask.grad.any()


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_probability": 1.0}, r"mask_probability\s+Input should be less than 1"),
        ({"mask_probability": -0.1}, r"mask_probability\s+Input should be greater than or equal to 0"),
        ({"max_length": 1}, r"max_length\s+Input should be greater than or equal to 2"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**arguments)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim=16, num_heads=3"):
        make(num_heads=3)
