from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.data.batching import Batch, TrainingBatches, history_batch
from components.inference import Scorer
from components.model import Catalog
from components.schema import PAD
from components.students import STUDENTS
from components.students.recguru import Decoder, DecoderBlock, RecGURU
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from tests.worlds import random_sequences

ITEMS = 12


def make(**arguments: object) -> RecGURU:
    torch.manual_seed(0)
    catalog = Catalog(ITEMS, 5, np.zeros(ITEMS + 1, np.int64))
    small = {"dim": 16, "inner_dim": 32, "num_layers": 1, "max_length": 8}
    model = STUDENTS["recguru"].make(catalog, {**small, **arguments})
    assert isinstance(model, RecGURU)
    return model


def all_positions(history: list[int]) -> Batch:
    batch = history_batch([history], 8)
    every = torch.arange(len(history))
    return replace(batch, positions=every, instances=every)


def training_batch() -> Batch:
    batches = TrainingBatches(random_sequences(20, ITEMS, 12), 8, 20)
    return batches.batch(batches.epoch(0)[0])


def test_parameters_are_those_of_one_encoder_and_two_decoders() -> None:
    ends = 8 * 16 + 2 * 16  # positions and the norm of the input
    block = (4 * 16 * 16 + 4 * 16) + (2 * 16 * 32 + 32 + 16) + 2 * 2 * 16
    decoder_block = block + (16 * 16 + 16) + 2 * 16
    parts = make().parameter_parts()
    assert parts == {
        "total": 13 * 16 + 3 * ends + block + 2 * decoder_block,
        "embedding": 13 * 16,
        "network": 3 * ends + block + 2 * decoder_block,
        "head": 0,
    }


def test_attention_to_copies_of_a_vector_is_a_linear_map_of_it() -> None:
    torch.manual_seed(0)
    block, attention = DecoderBlock(8, 2, 16, 0.0, 0.0), nn.MultiheadAttention(8, 2, batch_first=True)
    value = attention.in_proj_weight[16:], attention.in_proj_bias[16:]
    with torch.no_grad():
        block.read.weight.copy_(attention.out_proj.weight @ value[0])
        block.read.bias.copy_(attention.out_proj.weight @ value[1] + attention.out_proj.bias)
    user, queries = torch.randn(3, 1, 8), torch.randn(3, 5, 8)
    copies = user.expand(3, 5, 8)
    expected, _ = attention(queries, copies, copies)
    torch.testing.assert_close(block.read(user).expand(3, 5, 8), expected)


def test_the_future_does_not_change_a_state() -> None:
    model = make(num_layers=2).eval()
    states = [model.states(all_positions([1, 2, 3, *tail])) for tail in ([4, 5], [9, 9])]
    torch.testing.assert_close(states[0][:3], states[1][:3])
    assert not torch.allclose(states[0][3:], states[1][3:])


def test_a_decoder_reads_the_user_vector_and_the_items_up_to_a_position() -> None:
    torch.manual_seed(0)
    decoder = Decoder(8, 2, 2, 16, 5, 0.1).eval()
    x, user = torch.randn(1, 5, 8), torch.randn(1, 1, 8)
    decoded = decoder(x, user)
    later = torch.cat([x[:, :3], -x[:, 3:]], dim=1)
    torch.testing.assert_close(decoder(later, user)[:, :3], decoded[:, :3])
    assert not torch.allclose(decoder(later, user)[:, 3:], decoded[:, 3:])
    assert not torch.allclose(decoder(x, -user)[:, 0], decoded[:, 0])
    torch.testing.assert_close(decoder(x, user.expand(1, 5, 8)), decoded)


def test_the_loss_rebuilds_every_item_from_those_before_it_and_the_user_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make().eval(), training_batch()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = model.autoencoder_head.loss

    def spy(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append((states, targets))
        return original(states, targets)

    monkeypatch.setattr(model.autoencoder_head, "loss", spy)
    model.loss(batch)
    ((states, targets),) = seen
    assert torch.equal(targets, batch.items[batch.items != PAD])
    expected = []
    for row in batch.items:
        items = row[row != PAD]
        vectors = model.item_embedding(items)
        user = model.encoder(vectors[None], torch.tensor([len(items) - 1]))
        before = torch.cat([torch.zeros(1, 16), vectors[:-1]])
        expected.append(model.rebuild(before[None], user[None])[0])
    torch.testing.assert_close(states, torch.cat(expected))


def test_the_weight_adds_the_loss_of_the_autoencoder() -> None:
    batch, losses = training_batch(), []
    for weight in (0.0, 1.0, 3.0):
        model = make(reconstruction_weight=weight, dropout=0.0)
        torch.manual_seed(1)
        losses.append(model.loss(batch).item())
    model = make().eval()
    torch.manual_seed(1)
    assert model.head.loss(model.states(batch), batch.targets).item() == pytest.approx(losses[0], rel=1e-6)
    assert losses[1] > losses[0]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)


def test_an_empty_history_has_nothing_to_rebuild() -> None:
    model = make().eval()
    batch = replace(history_batch([[]], 8), targets=torch.tensor([3]))
    torch.manual_seed(1)
    loss = model.loss(batch)
    torch.manual_seed(1)
    assert loss.item() == model.head.loss(model.states(batch), batch.targets).item()


def hits(folder: Path, cyclic: float) -> float:
    """Share of users whose held-out item a trained model ranks first."""
    data = random_sequences(150, ITEMS, 10, cyclic=cyclic)
    model = make(dropout=0.1)
    settings = TrainingConfig(epochs=25, batch_size=32, learning_rate=0.003)
    batches = model.training_batches(data, 32, "last", 0)
    Trainer(model, batches, settings, objective=model.loss, validate=None, folder=folder).fit()
    return float((Scorer(model).positions(data.cases("test")) == 1).mean())


def test_finds_a_planted_succession_and_none_in_noise(tmp_path: Path) -> None:
    assert hits(tmp_path / "planted", 0.9) > 0.5
    assert hits(tmp_path / "control", 0.0) < 0.2


def test_the_autoencoder_learns_to_rebuild_histories_of_noise(tmp_path: Path) -> None:
    """The user vector must carry the items: nothing else says what a random history holds."""
    data = random_sequences(60, ITEMS, 6)
    model = make(dropout=0.0, dim=32, reconstruction_negatives=32)
    batches = model.training_batches(data, 32, "last", 0)
    batch = batches.batch(np.concatenate(batches.epoch(0)))

    def rebuilt() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return model.eval()._reconstruction_loss(batch, *model._encoded(batch)).item()

    before = rebuilt()
    settings = TrainingConfig(epochs=60, batch_size=32, learning_rate=0.01)
    Trainer(model, batches, settings, objective=model.loss, validate=None, folder=tmp_path).fit()
    assert rebuilt() < 0.5 * before


@pytest.mark.parametrize("name", ["num_negatives", "reconstruction_negatives", "num_layers"])
def test_a_wrong_argument_is_named(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"{name}\s+Input should be greater than or equal to 1"):
        make(**{name: 0})


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim=16, num_heads=3"):
        make(num_heads=3)
