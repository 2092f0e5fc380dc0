"""The factorization machine: against a plain forward pass, by count, and what its losses may learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from components.distillation.losses import kd_loss
from components.model import Catalog
from components.students import STUDENTS
from components.students.fm import fold
from tests.components.students.factor_worlds import (
    ALL_FIELDS,
    COUNTS,
    HISTORIES,
    NUM_ITEMS,
    USERS,
    batch,
    make,
    naive_fm,
)

TARGETS = torch.tensor([4, 7, 1, 2])
LOSSES = [
    {"loss": "softmax"},
    {"loss": "sampled-softmax", "num_negatives": 6},
    {"loss": "sampled-softmax", "num_negatives": 6, "shared_negatives": False},
    {"loss": "gbce", "num_negatives": 6},
    {"loss": "bce", "num_negatives": 6},
    {"loss": "bpr", "num_negatives": 6},
]


def test_the_identity_of_pairs_by_hand() -> None:
    """S1: v = (1, 2), (3, 0), (0, 1); all pairs are worth 3 + 2 + 0 = 5, split or not."""
    vectors = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # weights 0
    assert fold(vectors)[1].item() == 5.0
    user, item = fold(vectors[:1]), fold(vectors[1:])
    assert (user[0] @ item[0]).item() == 5.0
    assert (user[1].item(), item[1].item()) == (0.0, 0.0)


@pytest.mark.parametrize("arguments", [{}, ALL_FIELDS, {**ALL_FIELDS, "use_history": False}])
def test_scores_equal_the_plain_forward_pass(arguments: dict[str, object]) -> None:
    """S2."""
    model = make("fm", **arguments).eval()
    expected = [
        [naive_fm(model, history, user, item) for item in range(1, NUM_ITEMS + 1)]
        for history, user in zip(HISTORIES, USERS, strict=True)
    ]
    scores = model.all_scores(batch())[:, 1:]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert scores.std() > 0.5  # tables are random, so equality says something


def test_scores_are_columns_of_all_scores() -> None:
    """S10."""
    model = make("fm", **ALL_FIELDS).eval()
    candidates = torch.tensor([5, 1, 9, 5])
    torch.testing.assert_close(model.scores(batch(), candidates), model.all_scores(batch())[:, candidates])
    assert torch.isinf(model.all_scores(batch())[:, 0]).all()


def test_parameter_count_of_the_specification() -> None:
    """Section 11.2: M values of all fields at width D make M (D + 1) + 1; M = 100 at D = 8 makes 901."""
    catalog = Catalog(59, 39, torch.zeros(60, dtype=torch.int64).numpy())
    model = STUDENTS["fm"].make(catalog, {"dim": 8, "use_history": False})  # 60 + 40 rows, the unknown included
    assert model.parameter_parts() == {"total": 901, "embedding": 900, "network": 1, "head": 0}
    values = 10 + 6 + 10 + 4 + 3 + 3  # items, users, history, brands a b c, colors, cities
    assert make("fm", **ALL_FIELDS).parameter_parts()["total"] == values * 7 + 1


def test_softmax_is_that_of_the_whole_catalog() -> None:
    model = make("fm", **ALL_FIELDS)
    expected = F.cross_entropy(model.all_scores(batch())[:, 1:], TARGETS - 1)
    torch.testing.assert_close(model.loss(replace(batch(), targets=TARGETS)), expected)


@pytest.mark.parametrize("arguments", LOSSES)
def test_gradients_reach_all_that_the_loss_can_learn(arguments: dict[str, object]) -> None:
    """A relative loss cannot learn what all items of a row share: no gradient, no rounding error."""
    model = make("fm", **ALL_FIELDS, **arguments)
    model.loss(replace(batch(), targets=TARGETS)).backward()
    absolute = arguments["loss"] in ("bce", "gbce")
    for name, parameter in model.named_parameters():
        if name == "user_rows.bias":
            assert (parameter.grad is not None and parameter.grad != 0) == absolute
            continue
        assert parameter.grad is not None, name
        assert parameter.grad[:, :-1].ne(0).any(), name
        learns_weight = absolute or name.startswith("item_rows")
        assert parameter.grad[:, -1].ne(0).any() == learns_weight, name


def test_softmax_gives_the_gradients_of_the_plain_scores() -> None:
    fast, plain = make("fm", **ALL_FIELDS), make("fm", **ALL_FIELDS)
    fast.loss(replace(batch(), targets=TARGETS)).backward()
    F.cross_entropy(plain.scores(batch(), torch.arange(1, NUM_ITEMS + 1)), TARGETS - 1).backward()
    for (name, found), expected in zip(fast.named_parameters(), plain.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_constant_of_a_user_changes_neither_ranking_nor_distillation() -> None:
    """S11."""
    model = make("fm").eval()
    fused = torch.rand(4, NUM_ITEMS).softmax(dim=1)
    candidates = torch.arange(1, NUM_ITEMS + 1)
    with torch.no_grad():
        before = model.scores(batch(), candidates)
        model.user_rows.fields.fields.fields[0].table.weight[1:, -1] += torch.arange(1.0, 6.0)
        after = model.scores(batch(), candidates)
    torch.testing.assert_close(after - before, torch.tensor([1.0, 4.0, 2.0, 0.0])[:, None].expand(4, NUM_ITEMS))
    torch.testing.assert_close(after.softmax(dim=1), before.softmax(dim=1))
    torch.testing.assert_close(kd_loss(after, fused), kd_loss(before, fused))


def test_distillation_leaves_the_constant_of_a_user_alone() -> None:
    model = make("fm", **ALL_FIELDS)
    fused = torch.rand(4, NUM_ITEMS).softmax(dim=1)
    kd_loss(model.scores(batch(), torch.arange(1, NUM_ITEMS + 1)), fused).backward()
    assert model.user_rows.bias.grad is None
    users, items = model.user_rows.fields.fields.fields, model.item_rows.fields.fields
    assert all(field.table.weight.grad[:, -1].eq(0).all() for field in users)
    assert all(field.table.weight.grad[:, -1].ne(0).any() for field in items)


def test_vectors_begin_small_and_weights_at_zero() -> None:
    """Section 5: N(0, 0.01) and 0."""
    catalog = Catalog(4000, 5, COUNTS[:1].repeat(4001))
    table = STUDENTS["fm"].make(catalog, {}).item_rows.fields.fields[0].table.weight  # type: ignore[union-attr]
    assert table[1:, :-1].std().item() == pytest.approx(0.01, rel=0.02)
    assert table[:, -1].eq(0).all()
