from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.data.batching import Batch, TrainingBatches, history_batch
from components.data.flat_sequences import Sequences
from components.distillation.config import DistillationConfig
from components.distillation.distiller import Distiller
from components.distillation.teacher_scores import TeacherCache
from components.inference import Scorer
from components.model import Catalog
from components.students import STUDENTS, lightgcn
from components.students.lightgcn import LightGCN
from components.training.config import TrainingConfig
from components.training.optimizer import FusedAdam
from components.training.seeds import seed_everything
from tests.components.layers.test_bipartite import dense_propagation
from tests.components.teachers.worlds import planted
from tests.worlds import random_sequences, sequences

USERS, ITEMS, DIM = 12, 9, 5
LOSSES = ["softmax", "bpr"]


def world(seed: int = 0) -> Sequences:
    return random_sequences(USERS, ITEMS, 8, seed=seed)


def make(data: Sequences | None = None, num_users: int = USERS, num_items: int = ITEMS, **arguments: Any) -> LightGCN:
    seed_everything(0)
    catalog = Catalog(num_items, num_users, np.zeros(num_items + 1, np.int64), world() if data is None else data)
    model = STUDENTS["lightgcn"].make(catalog, {"dim": DIM, "num_layers": 2, "max_length": 8, **arguments})
    assert isinstance(model, LightGCN)
    return model


def one_batch(data: Sequences | None = None) -> Batch:
    batches = TrainingBatches(world() if data is None else data, 8, USERS)
    return batches.batch(batches.epoch(0)[0])


def layer_zero(model: LightGCN) -> list[Tensor]:
    return [model.vectors.user_embedding.weight, model.vectors.item_embedding.weight]  # type: ignore[list-item]


def dense_tables(model: LightGCN) -> tuple[Tensor, Tensor]:
    """(U + 1, D), (N + 1, D) by the dense formula."""
    start = torch.cat(layer_zero(model))
    users, items = dense_propagation(model.vectors.graph, start, model.vectors.num_layers).split([USERS + 1, ITEMS + 1])
    return users, items


def dense_loss(model: LightGCN, batch: Batch, loss: str, drawn: Tensor, l2: float) -> Tensor:
    """The formulas of students.md, sections 7 and 8, position by position."""
    users, items = dense_tables(model)
    own_users, own_items = layer_zero(model)
    terms = []
    for row, target, other in zip(batch.rows.tolist(), batch.targets.tolist(), drawn.tolist(), strict=True):
        user = int(batch.users[row])
        if loss == "softmax":
            terms.append(-(items[1:] @ users[user]).log_softmax(0)[target - 1])
            continue
        difference = users[user] @ (items[other] - items[target])
        norms = own_users[user].square().sum() + own_items[target].square().sum() + own_items[other].square().sum()
        terms.append((F.softplus(difference) if other != target else 0.0) + l2 * 0.5 * norms)
    return torch.stack(terms).mean()


def count_calls(model: LightGCN, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every propagation."""
    calls: list[int] = []
    propagate: Callable[[Tensor, int], Tensor] = model.vectors.graph.propagate
    monkeypatch.setattr(model.vectors.graph, "propagate", lambda x, k: (calls.append(k), propagate(x, k))[1])
    return calls


def distiller(model: LightGCN, data: Sequences) -> Distiller:
    generator = torch.Generator().manual_seed(5)
    states = [torch.randn(data.num_instances, 4, generator=generator).half() for _ in range(2)]
    items = [torch.randn(ITEMS + 1, 4, generator=generator).half() for _ in range(2)]
    config = DistillationConfig(weight=2.0)
    return Distiller(model, TeacherCache(states, items, [config.temperature] * 2), ["a", "b"], [0.1, 0.2], config)


def test_scores_are_those_of_the_dense_formula() -> None:
    model = make().eval()
    batch = history_batch([[1], [2, 3], [4]], 8, [3, 1, 12])
    users, items = dense_tables(model)
    torch.testing.assert_close(model.all_scores(batch)[:, 1:], users[[3, 1, 12]] @ items[1:].t())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_training_step_is_that_of_the_dense_formula(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = make(loss=loss, l2=0.3).train(), make(loss=loss, l2=0.3)
    batch = one_batch()
    drawn = torch.randint(1, ITEMS + 1, (len(batch.targets),))
    assert (drawn == batch.targets).any(), "a draw of the target itself is among them"
    if loss == "bpr":
        monkeypatch.setattr(model.head.sampler, "forward", lambda positions: drawn[:, None])
    found, expected = model.loss(batch), dense_loss(plain, batch, loss, drawn, 0.3)
    torch.testing.assert_close(found, expected)
    for subject, value in ((model, found), (plain, expected)):
        value.backward()
        torch.optim.SGD(subject.parameters(), lr=1.0).step()
    for own, other in zip(layer_zero(model), layer_zero(plain), strict=True):
        torch.testing.assert_close(own, other)
    assert not any(table[0].any() for table in layer_zero(model)), "unknown user and PAD stay zero"


def test_a_user_s_positions_share_one_row_of_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    plain = lightgcn.repeated_cross_entropy
    monkeypatch.setattr(
        lightgcn,
        "repeated_cross_entropy",
        lambda states, *rest, **more: rows.append(len(states)) or plain(states, *rest, **more),
    )
    batch = one_batch()
    make(loss="softmax").train().loss(batch)
    assert rows == [len(batch)]
    assert len(batch.targets) > len(batch)


def test_l2_weighs_the_vectors_of_layer_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = one_batch()
    values = []
    for l2 in (0.0, 1.0):
        model = make(loss="bpr", l2=l2)
        monkeypatch.setattr(model.head.sampler, "forward", lambda positions: torch.ones(positions, 1, dtype=torch.long))
        values.append(model.loss(batch))
    users, items = layer_zero(model)
    rows = torch.cat([users[batch.users[batch.rows]], items[batch.targets], items[1].expand(len(batch.targets), -1)])
    torch.testing.assert_close(values[1] - values[0], 0.5 * rows.square().sum() / len(batch.targets))


@pytest.mark.parametrize("loss", LOSSES)
def test_one_propagation_serves_the_whole_step_of_distillation(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = world()
    model = make(data, loss=loss).train()
    objective, batch = distiller(model, data), one_batch(data)
    calls = count_calls(model, monkeypatch)
    optimizer = FusedAdam(model.parameters(), TrainingConfig(learning_rate=0.05))
    losses = []
    for _ in range(3):
        torch.manual_seed(0)
        value = objective(batch)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert len(calls) == 2 * 3, "one forward and, by the same function, one backward for each step"
    assert losses[0] > losses[1] > losses[2], "every step sees the parameters of the last one"


def test_distillation_adds_its_gradient_to_that_of_the_loss() -> None:
    data = world()
    gradients = []
    for part in ("both", "loss", "teachers"):
        model, batch = make(data).train(), one_batch(data)
        objective = distiller(model, data)
        if part == "both":
            value = objective(batch)
        else:
            value = (
                model.loss(batch) if part == "loss" else 2.0 * objective.distillation_loss(model.states(batch), batch)
            )
        gradients.append(torch.cat(torch.autograd.grad(value, layer_zero(model))))
    torch.testing.assert_close(gradients[0], gradients[1] + gradients[2])
    assert gradients[2].abs().max() > 1e-3


@torch.no_grad()
def test_evaluation_propagates_once_until_a_parameter_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = world()
    model = make(data).eval()
    calls = count_calls(model, monkeypatch)
    scorer = Scorer(model, batch_size=2, block_items=4)
    before = scorer.positions(data.cases("test"))
    scorer.top_k([np.array([1], np.int32)] * 3, 2, users=[1, 2, 0])
    assert len(calls) == 1
    model.load_state_dict({name: -value if value.is_floating_point() else value for name, value in changed(model)})
    after = scorer.positions(data.cases("test"))
    assert len(calls) == 2
    assert (before != after).any()


def changed(model: LightGCN) -> list[tuple[str, Tensor]]:
    """The state with other item vectors; users stay, so that signs do not cancel."""
    generator = torch.Generator().manual_seed(1)
    return [
        (name, torch.randn(value.shape, generator=generator) if "item_embedding" in name else value)
        for name, value in model.state_dict().items()
    ]


def test_training_between_two_evaluations_is_seen() -> None:
    """The fused step changes parameters without a trace in their versions."""
    data = world()
    model, batch = make(data), history_batch([[1]], 8, [1])
    optimizer = FusedAdam(model.parameters(), TrainingConfig(learning_rate=0.1))
    scores = []
    for _ in range(2):
        with torch.no_grad():
            scores.append(model.eval().all_scores(batch)[:, 1:])
        model.train().loss(one_batch(data)).backward()
        optimizer.step()
    fresh = make(data)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.eval().all_scores(batch), fresh.eval().all_scores(batch))
    assert not torch.allclose(scores[0], scores[1])


def test_a_step_on_gradients_of_other_workers_alone_is_seen() -> None:
    """A worker without a share of the batch propagates nothing in training, and its parameters move all the same."""
    model, batch = make(), history_batch([[1]], 8, [1])
    with torch.no_grad():
        before = model.eval().all_scores(batch)[:, 1:]
    model.train()
    for table in layer_zero(model):
        table.grad = torch.ones_like(table)
    FusedAdam(model.parameters(), TrainingConfig(learning_rate=0.1)).step()
    with torch.no_grad():
        assert not torch.allclose(model.eval().all_scores(batch)[:, 1:], before)


def test_held_out_interactions_are_not_in_the_graph() -> None:
    data = sequences([[1, 2, 3, 4, 5], [2, 3, 6, 7]])
    graph = make(data, 2).vectors.graph
    assert graph.offsets.tolist() == [0, 0, 3, 5]
    assert graph.items.tolist() == [1, 2, 3, 2, 3]


def test_the_history_of_a_known_user_is_ignored() -> None:
    model = make().eval()
    scores = model.all_scores(history_batch([[1, 2], [7], []], 8, [4, 4, 4]))
    torch.testing.assert_close(scores[0], scores[1])  # rows of one product may differ in their last bits
    torch.testing.assert_close(scores[0], scores[2])


@pytest.mark.parametrize("user", [0, 3, 4, 99])
def test_a_stranger_is_folded_in_by_the_history(user: int) -> None:
    """Unknown (0 and beyond the catalog), or without training items (3 has no row, 4 has an empty one)."""
    data = replace(sequences([[1, 2, 3, 9, 9], [1, 5, 6, 9, 9], [7, 8]]), users=np.array([1, 2, 4], np.int32))
    data = replace(data, train_end=np.array([3, 3, 0], np.int32))
    model = make(data, 4).eval()
    _, items = model.vectors.tables()
    degrees = {1: 2, 2: 1, 5: 1, 4: 1}  # 4: nobody has it, and it counts as if one user had
    expected = sum(items[item] / np.sqrt(4 * degree) for item, degree in degrees.items())
    states = model.states(history_batch([[1, 2, 1, 5, 2, 4]], 8, [user]))
    torch.testing.assert_close(states[0], expected)
    assert not model.states(history_batch([[]], 8, [user])).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_stranger_at_a_position_has_the_items_up_to_it(loss: str) -> None:
    model = make(loss=loss).eval()
    history = [3, 1, 3, 7, 1]
    every = torch.arange(5)
    together = replace(history_batch([history, [2, 4]], 8, [0, 1]), positions=torch.cat([every, torch.tensor([6])]))
    states = model.states(together)
    for end in range(1, 6):
        torch.testing.assert_close(states[end - 1], model.states(history_batch([history[:end]], 8))[0])
    torch.testing.assert_close(states[5], model.states(history_batch([[9]], 8, [1]))[0])


def test_parameters_are_the_vectors_of_users_and_items() -> None:
    """students.md, 11.2, with the rows of the unknown user and of PAD."""
    parts = make().parameter_parts()
    rows = (USERS + 1) + (ITEMS + 1)
    assert parts == {"total": rows * DIM, "embedding": rows * DIM, "network": 0, "head": 0}


@pytest.mark.parametrize("loss", LOSSES)
def test_planted_tastes_are_found_and_a_shuffled_control_has_none(loss: str) -> None:
    data, _ = planted(num_items=40, num_users=120)
    shuffled = replace(data, items=np.random.default_rng(0).permutation(data.items))

    def hits(data: Sequences) -> float:
        model = make(data, 120, 40, dim=16, loss=loss)
        optimizer = FusedAdam(model.parameters(), TrainingConfig(learning_rate=0.02))
        batches = TrainingBatches(data, 8, 40)
        for epoch in range(30):
            for windows in batches.epoch(epoch):
                model.train().loss(batches.batch(windows)).backward()
                optimizer.step()
        return float((Scorer(model).positions(data.cases("test"), mask_history=True) <= 10).mean())

    assert hits(data) > 0.9
    assert hits(shuffled) < 0.5
