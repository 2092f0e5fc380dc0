from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from components.data.batching import Batch, history_batch
from components.data.flat_sequences import Sequences
from components.model import Catalog
from components.students import STUDENTS
from components.students.caser import Caser, CaserConfig, WindowConvolutions
from tests.components.students.walks import every_position, make

SMALL = {"dim": 6, "window": 4, "max_length": 10, "num_horizontal": 3, "num_vertical": 2}


def caser(**arguments: object) -> Caser:
    model = make("caser", **(SMALL | arguments))
    assert isinstance(model, Caser)
    for name, parameter in model.named_parameters():
        if "embedding" in name:  # large enough that a difference shows
            torch.nn.init.normal_(parameter[1:])
    return model


def plain(model: Caser, history: list[int], user: int) -> Tensor:
    """(D,) the state after `history`, as the paper writes it: one window, one filter, one place at a time."""
    network, size = model.network, model.network.window
    items = ([0] * size + history)[-size:]
    window = torch.stack([model.item_embedding(torch.tensor(item)) for item in items])  # (W, D)
    pooled = []
    for height, layer in enumerate(network.horizontal, start=1):
        for weight, bias in zip(layer.weight, layer.bias, strict=True):
            kernel = weight.view(height, -1)
            values = [(kernel * window[i : i + height]).sum() + bias for i in range(size - height + 1)]
            pooled.append(max(F.relu(value) for value in values))
    columns = [
        sum(weight[place] * window[place, channel] for place in range(size)) + bias
        for channel in range(window.shape[1])
        for weight, bias in zip(network.vertical.weight, network.vertical.bias, strict=True)
    ]
    state = F.relu(network.connect(torch.stack([*pooled, *columns])))
    if model.user_embedding is not None:
        state = torch.cat([state, model.user_embedding.weight[user]])
    return model.project(state)


@pytest.mark.parametrize("window", [1, 4, 10])
@pytest.mark.parametrize("use_users", [True, False])
@torch.no_grad()
def test_states_are_those_of_plain_loops(window: int, use_users: bool) -> None:
    model = caser(window=window, use_users=use_users)
    history = [3, 17, 4, 9, 9, 20, 1]
    expected = torch.stack([plain(model, history[: end + 1], user=2) for end in range(len(history))])
    torch.testing.assert_close(model.states(every_position(history, 10, user=2)), expected)
    torch.testing.assert_close(model.states(history_batch([history], 10, [2]))[0], expected[-1])


@pytest.mark.parametrize("use_users", [True, False])
def test_parameter_count_by_hand(use_users: bool) -> None:
    model = make("caser", 100, 7, dim=8, window=3, num_horizontal=5, num_vertical=2, use_users=use_users)
    horizontal, vertical = 5 * (8 + 16 + 24) + 3 * 5, 2 * 3 + 2
    connect = (5 * 3 + 2 * 8) * 8 + 8
    project = (16 if use_users else 8) * 8 + 8
    embedding = 101 * 8 + (8 * 8 if use_users else 0)  # users 0..7
    network = horizontal + vertical + connect + project
    assert model.parameter_parts() == {
        "total": embedding + network,
        "embedding": embedding,
        "network": network,
        "head": 0,
    }


def test_a_state_sees_its_window_and_nothing_else() -> None:
    """S6, causality, and what Caser forgets."""
    model = caser()
    states = [model.states(every_position(row, 10)) for row in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 9, 9])]
    torch.testing.assert_close(states[0][:4], states[1][:4])
    assert not torch.isclose(states[0][4:], states[1][4:]).all(1).any()
    older = model.states(every_position([9, 2, 3, 4, 5, 6], 10))
    torch.testing.assert_close(older[4:], states[0][4:])
    assert not torch.isclose(older[:4], states[0][:4]).all(1).any()


@pytest.mark.parametrize("lengths", [[1, 6, 10], [2], [3, 3]])
def test_the_last_windows_alone_are_those_of_the_full_pass(lengths: list[int]) -> None:
    model = caser(dropout=0.0)
    batch = history_batch([list(range(1, length + 1)) for length in lengths], 10, list(range(len(lengths))))
    torch.testing.assert_close(model.eval().states(batch), model.train().states(batch))


def test_in_evaluation_only_windows_are_convolved() -> None:
    model, shapes = caser(), []
    model.network.register_forward_hook(lambda module, arguments, out: shapes.append(arguments[0].shape))
    model.states(history_batch([list(range(1, 11)), [4]], 10))
    assert shapes == [(2, 4, 6)]


def test_padding_changes_nothing() -> None:
    """S6, padding."""
    model = caser()
    row = every_position([3, 1, 7], 10)
    torch.testing.assert_close(model.states(replace(row, items=F.pad(row.items, (0, 4)))), model.states(row))


def test_a_user_changes_the_scores_and_an_unknown_one_adds_nothing() -> None:
    model = caser()
    known, unknown = (model.all_scores(history_batch([[1, 2]], 10, [user])) for user in (3, 0))
    assert not torch.allclose(known[:, 1:], unknown[:, 1:])
    state = model.states(history_batch([[1, 2]], 10))
    window = model.network(model.item_embedding(torch.tensor([[0, 0, 1, 2]])))[:, 0]
    torch.testing.assert_close(state, F.linear(window, model.project.weight[:, :6], model.project.bias))
    anyone = caser(use_users=False)
    batches = [history_batch([[1, 2]], 10, [user]) for user in (3, 0)]
    assert torch.equal(anyone.states(batches[0]), anyone.states(batches[1]))


def test_the_unknown_user_keeps_zeros_through_training() -> None:
    model = caser().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    batch = users_of(every_position([1, 2, 3], 10), 0)
    for user in (0, 2):
        loss = model.loss(replace(users_of(batch, user), targets=torch.tensor([2, 3, 4])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.user_embedding is not None
    assert torch.equal(model.user_embedding.weight[0], torch.zeros(6))


def users_of(batch: Batch, user: int) -> Batch:
    return replace(batch, users=torch.full_like(batch.users, user))


def test_vectors_start_with_the_deviation_of_the_authors() -> None:
    model = make("caser", 2000, 2000, dim=20)
    for name in ("item_embedding.weight", "user_embedding.weight"):
        weight = model.state_dict()[name]
        assert torch.equal(weight[0], torch.zeros(20))
        assert weight[1:].std().item() == pytest.approx(1 / 20, rel=0.03)


def test_dropout_works_on_the_connected_layer_in_training_alone() -> None:
    torch.manual_seed(0)
    network = WindowConvolutions(50, 3, 4, 2, dropout=0.5)
    x = torch.randn(4, 12, 50)
    whole = network.eval()(x)
    dropped = network.train()(x)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    assert kept.sum() / (whole != 0).sum() == pytest.approx(0.5, abs=0.05)


def test_a_window_longer_than_histories_is_refused() -> None:
    with pytest.raises(ValidationError, match="window must be at most max_length, got window=6, max_length=5"):
        CaserConfig(window=6, max_length=5)
    assert CaserConfig(window=5, max_length=5).window == 5


def test_users_of_whom_nothing_trains_are_unknown_ones() -> None:
    ends, lengths = np.array([2, 0, 1, 3], np.int32), np.array([3, 3, 3, 3])
    sequences = Sequences(
        users=np.array([1, 2, 3, 4], np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=np.ones(12, np.int32),
        train_end=ends,
        valid_end=ends,
    )
    catalog = Catalog(num_items=3, num_users=4, counts=np.array([0, 3, 2, 1]), sequences=sequences)
    vectors = STUDENTS["caser"].make(catalog, {"dim": 8}).user_embedding.weight
    assert vectors.any(dim=1).tolist() == [False, True, False, False, True]
