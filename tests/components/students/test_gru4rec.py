from __future__ import annotations

import pytest
import torch
from torch import nn

from components.data.batching import history_batch
from components.students.gru4rec import GRUEncoder, make_gru
from tests.components.students.walks import every_position, make

SMALL = {"dim": 16, "hidden_dim": 24, "max_length": 8}


def test_parameter_count_of_the_specification() -> None:
    """S12: N + 1 = 101, D = h = 300: embedding, GRU without bias 3h(D + h), output layer hD + D."""
    parts = make("gru4rec", 100, dim=300, hidden_dim=300).parameter_parts()
    assert parts == {"total": 660_600, "embedding": 30_300, "network": 540_000 + 90_000 + 300, "head": 0}


def test_a_second_layer_adds_its_two_matrices() -> None:
    one, two = (make("gru4rec", **SMALL, num_layers=layers).parameter_parts()["network"] for layers in (1, 2))
    assert two - one == 3 * 24 * (24 + 24)


def test_the_future_does_not_change_a_state() -> None:
    """S6, causality."""
    model = make("gru4rec", **SMALL)
    states = [model.states(every_position([1, 2, 3, *tail], 8)) for tail in ([4, 5], [9, 9])]
    torch.testing.assert_close(states[0][:3], states[1][:3])
    assert not torch.allclose(states[0][3:], states[1][3:])


def test_padding_changes_nothing() -> None:
    """S6, padding: a longer neighbor in the batch pads the row and leaves its scores as they were."""
    model = make("gru4rec", **SMALL)
    alone = model.all_scores(history_batch([[3, 1]], 8))
    beside = model.all_scores(history_batch([[3, 1], [1, 2, 3, 4, 5, 6, 7]], 8))
    torch.testing.assert_close(alone[0], beside[0])


def test_states_are_those_of_the_recurrence_written_out() -> None:
    """Cho et al. 2014 with torch's order of gates: reset, update, new."""
    torch.manual_seed(0)
    gru, output = make_gru(4, 3), nn.Linear(3, 4)
    x, hidden, expected = torch.randn(5, 4), torch.zeros(3), []
    into, back = (weight.chunk(3) for weight in (gru.weight_ih_l0, gru.weight_hh_l0))
    for item in x:
        reset, update = (torch.sigmoid(into[gate] @ item + back[gate] @ hidden) for gate in (0, 1))
        new = torch.tanh(into[2] @ item + reset * (back[2] @ hidden))
        hidden = (1 - update) * new + update * hidden
        expected.append(output(hidden))
    encoder = GRUEncoder(gru, output, dropout=0.0)
    torch.testing.assert_close(encoder(x[None], torch.arange(5)), torch.stack(expected))
    torch.testing.assert_close(encoder(x[None], torch.tensor([3]), last_only=True)[0], expected[3])


def test_weights_start_as_the_specification_says() -> None:
    model = make("gru4rec", 400, dim=200, hidden_dim=300)
    items = model.state_dict()["item_embedding.weight"][1:]
    assert items.std().item() == pytest.approx((2 / 601) ** 0.5, rel=0.02)
    weight = model.state_dict()["network.gru.weight_ih_l0"]  # (3 * 300, 200)
    bound = (6 / (900 + 200)) ** 0.5
    assert 0.99 * bound < weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_dropout_works_on_item_vectors_in_training_alone() -> None:
    model = make("gru4rec", **SMALL, dropout=0.5)
    batch = every_position([1, 2, 3, 4], 8)
    assert torch.equal(model.states(batch), model.states(batch))
    assert not torch.allclose(model.train().states(batch), model.states(batch))


def test_time_must_be_the_second_dimension() -> None:
    with pytest.raises(ValueError, match="gru must have batch_first=True, got batch_first=False"):
        GRUEncoder(nn.GRU(4, 4), nn.Identity(), 0.0)
