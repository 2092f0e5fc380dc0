"""The learner against the plain one: the same predictions, sizes and embeddings, batch after batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from components.embedding_size.config import NormMode, Task
from components.embedding_size.esapn import EsapnSide
from tests.components.embedding_size.plain import PlainEsapn
from tests.components.embedding_size.worlds import make_learner, make_world

USERS, ITEMS = 30, 40


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """Adam divides by the size of a gradient, so that rounding grows: in float64 it stays small."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("task", ["binary", "five-class"])
@pytest.mark.parametrize("mode", ["branches", "group", "selected"])
def test_the_learner_equals_the_plain_algorithm(mode: NormMode, task: Task) -> None:
    world = make_world(700, USERS, ITEMS, classes=2 if task == "binary" else 5)
    learner = make_learner(bn_mode=mode, task=task, policy_learning_rate=0.01, max_frequency=20)
    learner.users.ensure(USERS)
    learner.items.ensure(ITEMS)
    plain = PlainEsapn(USERS, ITEMS, learner.config, 0)
    plain.begin_as(learner)
    for start in [*range(0, 650, 50), 650, 653]:  # a batch of three rows and one of 47 at the end
        stop = {650: 653, 653: 700}.get(start, start + 50)
        part = slice(start, stop)
        ours = learner.step(world.users[part], world.items[part], world.labels[part])
        theirs = plain.step(world.users[part].tolist(), world.items[part].tolist(), world.labels[part])
        torch.testing.assert_close(ours.losses, theirs, rtol=1e-5, atol=1e-7)
        for own, side in ((learner.users, plain.users), (learner.items, plain.items)):
            assert isinstance(own, EsapnSide)
            assert own.sizes.tolist() == side.sizes
    for own, side in ((learner.users, plain.users), (learner.items, plain.items)):
        assert isinstance(own, EsapnSide)
        for entity, size in enumerate(side.sizes):
            held = own.store.branches(torch.tensor([entity]), learner.steps, learn=False)[size][0]
            expected = side.tables[size][entity].detach()  # moves made up for leave Adam's epsilon out of the sum
            torch.testing.assert_close(held, expected, rtol=1e-3, atol=5e-4)
    assert max(plain.users.sizes) > 2
