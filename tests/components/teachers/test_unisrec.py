from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from components.artifacts.models import load_model, save_model
from components.data.batching import TrainingBatches, history_batch
from components.errors import ArtifactError, ConfigError
from components.model import Catalog
from components.teachers import TEACHERS
from components.teachers.heads import CosineHead, unit
from components.teachers.unisrec import UniSRec
from tests.components.teachers.worlds import SMALL, TEXT_DIM, planted, train

HISTORIES = [[1, 5, 9], [2], [3, 7, 11, 15, 19]]


def make(catalog: Catalog, seed: int = 0, **arguments: Any) -> UniSRec:
    torch.manual_seed(seed)
    model = TEACHERS["unisrec"].make(catalog, {**SMALL, **arguments})
    assert isinstance(model, UniSRec)
    return model


@pytest.mark.parametrize("whitening", [False, True])
def test_it_learns_a_tiny_set(mode: str, whitening: bool) -> None:
    sequences, catalog = planted()
    model = make(catalog, mode=mode, whitening=whitening, dropout=0.0, adaptor_dropout=0.0)
    losses = train(model, catalog, 150)
    assert losses[-1] < 0.4 * losses[0]
    cases = sequences.cases("test")
    batch = history_batch([cases.history(i) for i in range(len(cases))], 10)
    top = model.eval().top_k(batch, 1)[0][:, 0].numpy()
    assert (top == cases.targets).mean() > 0.7


@pytest.mark.parametrize("whitening", [False, True])
def test_a_text_of_one_item_alone_is_survived(mode: str, whitening: bool) -> None:
    _, catalog = planted()
    text = np.zeros_like(catalog.features["text"])
    text[7] = catalog.features["text"][7]
    model = make(replace(catalog, features={"text": text}), mode=mode, whitening=whitening)
    assert np.isfinite(train(model, catalog, 10)).all()
    assert model.eval().all_scores(history_batch(HISTORIES, 10))[:, 1:].isfinite().all()


def test_a_catalog_in_which_no_item_has_a_text_is_refused(mode: str) -> None:
    _, catalog = planted()
    blank = replace(catalog, features={"text": np.zeros_like(catalog.features["text"])})
    with pytest.raises(ConfigError, match=r"no item has a text, and UniSRec reads nothing else.*or take unim2rec"):
        make(blank, mode=mode)


def test_the_loss_is_full_softmax_over_cosines(mode: str) -> None:
    sequences, catalog = planted()
    model = make(catalog, mode=mode).eval()
    batches = TrainingBatches(sequences, 10, 16)
    batch = batches.batch(batches.epoch(0)[0])
    states, table = model.states(batch), unit(model.items())
    expected = F.cross_entropy(states @ table.t() / 0.07, batch.targets - 1)
    torch.testing.assert_close(model.loss(batch), expected)
    torch.testing.assert_close(model.head.loss(states, batch.targets), expected)


def test_states_and_items_have_norm_1_and_padding_is_zero(mode: str) -> None:
    _, catalog = planted()
    model = make(catalog, mode=mode).train()
    items = model.item_vectors()
    assert model.training
    assert items.shape == (catalog.num_items + 1, 16)
    assert not items[0].any()
    torch.testing.assert_close(items[1:].norm(dim=1), torch.ones(catalog.num_items))
    states = model.states(history_batch(HISTORIES, 10))
    torch.testing.assert_close(states.norm(dim=1), torch.ones(3))


def test_t10_stored_vectors_give_the_models_own_scores(mode: str) -> None:
    _, catalog = planted(num_users=100)
    model = make(catalog, mode=mode).eval()
    generator = np.random.default_rng(0)
    histories = [list(generator.integers(1, 25, size=generator.integers(1, 11))) for _ in range(100)]
    batch = history_batch(histories, 10)
    with torch.no_grad():
        cached = model.states(batch) @ model.item_vectors().t()
        torch.testing.assert_close(cached[:, 1:] / model.temperature, model.all_scores(batch)[:, 1:])
    assert (model.all_scores(batch)[:, 0] == -torch.inf).all()


def test_scores_agree_with_the_whole_catalog(mode: str) -> None:
    _, catalog = planted()
    model, batch = make(catalog, mode=mode).eval(), history_batch(HISTORIES, 10)
    candidates = torch.tensor([7, 1, 24])
    torch.testing.assert_close(model.scores(batch, candidates), model.all_scores(batch)[:, candidates])
    blocks = [model.head.block(model.states(batch), start, start + 12) for start in (1, 13)]
    torch.testing.assert_close(torch.cat(blocks, dim=1), model.all_scores(batch)[:, 1:])


def test_padding_and_company_do_not_change_scores(mode: str) -> None:
    _, catalog = planted()
    model = make(catalog, mode=mode).eval()
    together = model.all_scores(history_batch(HISTORIES, 10))
    alone = torch.cat([model.all_scores(history_batch([history], 10)) for history in HISTORIES])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_save_and_load_keep_scores(mode: str, tmp_path: Path) -> None:
    _, catalog = planted()
    arguments = {**SMALL, "mode": mode, "whitening": True}
    model = make(catalog, mode=mode, whitening=True)
    train(model, catalog, 5)
    save_model(model, tmp_path, kind="unisrec", family="teacher", arguments=arguments, catalog=catalog)
    loaded = load_model(tmp_path)
    batch = history_batch(HISTORIES, 10)
    assert torch.equal(loaded.all_scores(batch), model.eval().all_scores(batch))


def test_the_same_seed_gives_the_same_model(mode: str) -> None:
    _, catalog = planted()
    first, second = make(catalog, mode=mode), make(catalog, mode=mode)
    assert train(first, catalog, 6) == train(second, catalog, 6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_kept_item_vectors_follow_every_change() -> None:
    _, catalog = planted()
    model, batch = make(catalog).eval(), history_batch(HISTORIES, 10)
    with torch.no_grad():
        before = model.all_scores(batch)
        assert model.head.block(model.states(batch), 1, 25).data_ptr() != before.data_ptr()
        assert model._tables()[0] is model._tables()[0]
        model.items.adaptor.weight.mul_(2).add_(0.1)
        changed = model.all_scores(batch)
        assert not torch.allclose(before, changed)
        model.load_state_dict(make(catalog).state_dict())
        torch.testing.assert_close(model.all_scores(batch), before)
    # A fused optimizer's step, in evaluation mode, is seen as well.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    model.loss(batches_of(catalog)).backward()
    optimizer.step()
    with torch.no_grad():
        stepped = model.all_scores(batch)
        assert not torch.allclose(stepped, before)
        torch.testing.assert_close(stepped, copy.deepcopy(model).all_scores(batch))


def batches_of(catalog: Catalog) -> Any:
    assert catalog.sequences is not None
    batches = TrainingBatches(catalog.sequences, 10, 16)
    return batches.batch(batches.epoch(0)[0])


def test_a_training_step_adapts_the_items_once(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, catalog = planted()
    model, calls = make(catalog, mode=mode), []
    forward = model.items.adaptor.forward
    monkeypatch.setattr(model.items.adaptor, "forward", lambda x: calls.append(len(x)) or forward(x))
    model.train().loss(batches_of(catalog)).backward()
    assert calls == [catalog.num_items]


def test_an_inductive_model_ranks_new_items() -> None:
    _, catalog = planted()
    model = make(catalog, mode="inductive", dropout=0.0, adaptor_dropout=0.0)
    train(model, catalog, 150)
    sequences, other = planted(num_items=44, num_users=60, seed=5)
    model.eval().set_text(torch.from_numpy(other.features["text"]))
    assert model.num_items == 44
    cases = sequences.cases("test")
    batch = history_batch([cases.history(i) for i in range(len(cases))], 10)
    scores = model.all_scores(batch)
    assert scores.shape == (60, 45)
    taste = scores[:, 1:].argmax(dim=1).numpy() % 4
    assert (taste == (cases.targets - 1) % 4).mean() > 0.9  # chance is a quarter


def test_an_inductive_model_is_saved_with_its_new_items(tmp_path: Path) -> None:
    _, catalog = planted()
    model = make(catalog, mode="inductive").eval()
    model.set_text(torch.randn(31, TEXT_DIM))
    arguments = {**SMALL, "mode": "inductive"}
    save_model(model, tmp_path, kind="unisrec", family="teacher", arguments=arguments, catalog=catalog)
    loaded, batch = load_model(tmp_path), history_batch([[30, 2]], 10)
    assert loaded.num_items == 30
    assert torch.equal(loaded.all_scores(batch), model.all_scores(batch))


def test_a_transductive_model_refuses_new_items() -> None:
    model = make(planted()[1], mode="transductive")
    with pytest.raises(ConfigError, match="use mode=inductive"):
        model.set_text(torch.randn(31, TEXT_DIM))
    inductive = make(planted()[1], mode="inductive")
    with pytest.raises(ConfigError, match=r"expected \(M \+ 1, 16\), got \(31, 5\)"):
        inductive.set_text(torch.randn(31, 5))


def test_pretrained_weights_move_to_another_catalog() -> None:
    source = make(planted()[1], mode="inductive", whitening=True)
    target = make(planted(num_items=40, seed=3)[1], seed=1, mode="transductive", whitening=True)
    own = {name: value.clone() for name, value in target.state_dict().items()}
    target.load_pretrained(source.state_dict())
    for name, value in target.state_dict().items():
        moved = name.startswith(("items.adaptor.", "items.whitening.", "encoder."))
        assert torch.equal(value, source.state_dict()[name] if moved else own[name]), name


def test_pretrained_weights_of_another_shape_are_refused() -> None:
    catalog = planted()[1]
    shapes = r"'items.adaptor.weight' has shape \(3, 16, 16\), the teacher needs \(3, 16, 8\)"
    with pytest.raises(ArtifactError, match=shapes):
        make(catalog, dim=8).load_pretrained(make(catalog).state_dict())
    with pytest.raises(ArtifactError, match="lack 'items"):
        make(catalog, whitening=True).load_pretrained(make(catalog).state_dict())


def test_parameter_efficient_tuning_leaves_the_encoder_as_it_was() -> None:
    _, catalog = planted()
    model = make(catalog, tune="adaptor")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = train(model, catalog, 60)
    assert np.mean(losses[-5:]) < losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    frozen = {name for name in before if name.startswith(("encoder.blocks.", "encoder.position_embedding."))}
    assert not changed & frozen
    assert {"items.adaptor.weight", "items.item_embedding.weight", "encoder.input_norm.weight"} <= changed


def test_parameters_by_part() -> None:
    _, catalog = planted()
    assert make(catalog, mode="transductive").parameter_parts()["embedding"] == 25 * 16
    assert make(catalog, mode="inductive").parameter_parts()["embedding"] == 0


def test_an_item_without_any_signal_does_not_break_training() -> None:
    _, catalog = planted()
    catalog.features["text"][3] = 0.0
    model = make(catalog, mode="inductive", adaptor_dropout=0.0)
    model.loss(batches_of(catalog)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.items.adaptor.bias.grad is not None
    assert model.items.adaptor.bias.grad.abs().max() < 1e6


def test_text_is_required() -> None:
    with pytest.raises(ConfigError, match="needs item text vectors"):
        make(Catalog(3, 2, np.zeros(4, np.int64)))


def test_bf16_autocast_trains(mode: str) -> None:
    _, catalog = planted()
    model, batch = make(catalog, mode=mode, dropout=0.0, adaptor_dropout=0.0).eval(), batches_of(catalog)
    with torch.autocast("cpu", torch.bfloat16):
        low = model.loss(batch)
    low.backward()
    assert low.item() == pytest.approx(model.loss(batch).item(), rel=0.02)


def test_cosine_head_by_hand() -> None:
    head = CosineHead(lambda: torch.eye(3)[:2], temperature=0.5)
    states = torch.tensor([[0.6, 0.8, 0.0]])
    torch.testing.assert_close(head.block(states, 1, 3), torch.tensor([[1.2, 1.6]]))
    torch.testing.assert_close(head.scores(states, torch.tensor([2])), torch.tensor([[1.6]]))
    assert head.loss(states, torch.tensor([1])).item() == pytest.approx(np.log(1 + np.exp(0.4)), abs=1e-5)
