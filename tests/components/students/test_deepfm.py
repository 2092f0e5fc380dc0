"""DeepFM: the split first layer against the whole network, chunks of pairs, candidates of a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from components.inference import Scorer
from components.model import Catalog
from components.students import STUDENTS
from components.students.deepfm import InBatchSampler, PairHead
from components.students.fm import FactorizationMachine
from tests.components.students.factor_worlds import (
    ALL_FIELDS,
    COUNTS,
    HISTORIES,
    NUM_ITEMS,
    USERS,
    batch,
    make,
    naive_fields,
    naive_fm,
)

TARGETS = torch.tensor([4, 7, 1, 7])


def deep(**arguments: Any) -> tuple[FactorizationMachine, PairHead]:
    model = make("deepfm", **{**ALL_FIELDS, "hidden": [5, 3], **arguments})
    assert isinstance(model.head, PairHead)
    return model, model.head


def naive_score(model: FactorizationMachine, history: list[int], user: int, item: int) -> float:
    """The network over the concatenated vectors of all fields, without any split, plus the factorization machine."""
    state, vectors = model.state_dict(), torch.cat(naive_fields(model, history, user, item)[0])
    first = torch.cat([state["user_rows.layer.weight"], state["item_rows.layer.weight"]], dim=1)
    hidden = F.relu(first @ vectors + state["user_rows.layer.bias"])
    hidden = F.relu(F.linear(hidden, state["head.tower.layers.2.weight"], state["head.tower.layers.2.bias"]))
    last = F.linear(hidden, state["head.tower.layers.5.weight"], state["head.tower.layers.5.bias"])
    return naive_fm(model, history, user, item) + last.item()


def naive_scores(model: FactorizationMachine) -> Tensor:
    pairs = zip(HISTORIES, USERS, strict=True)
    items = range(1, NUM_ITEMS + 1)
    return torch.tensor([[naive_score(model, history, user, item) for item in items] for history, user in pairs])


@pytest.mark.parametrize("pairs", [None, 1, 4, 10, 20])
def test_scores_equal_the_network_over_all_fields(pairs: int | None) -> None:
    """S2 and S9, whatever the chunks."""
    model, head = deep()
    head.pairs = pairs
    scores = model.eval().all_scores(batch())[:, 1:]
    torch.testing.assert_close(scores, naive_scores(model), rtol=1e-4, atol=1e-4)
    assert scores.std() > 0.5


def test_scores_are_columns_of_all_scores() -> None:
    """S10."""
    model, _ = deep()
    candidates = torch.tensor([5, 1, 9, 5])
    scores = model.eval().scores(batch(), candidates)
    torch.testing.assert_close(scores, model.all_scores(batch())[:, candidates])


def test_parameter_count_of_the_specification() -> None:
    """Section 11.2: four fields at D = 8 with hidden layers (128, 128) add 20,865 to the factorization machine."""
    arguments = {"dim": 8, "item_fields": ["brand"]}  # user, history, item, brand
    plain, model = make("fm", **arguments), make("deepfm", **arguments)
    assert model.parameter_parts()["total"] - plain.parameter_parts()["total"] == 20_865


@pytest.mark.parametrize("arguments", [{}, {"loss": "softmax"}, {"loss": "bce", "shared_negatives": False}])
def test_chunks_change_neither_loss_nor_gradients(arguments: dict[str, Any]) -> None:
    """Activations that are computed again meet the same dropout."""
    found = []
    for pairs in (10_000, 6):
        model, head = deep(**arguments, dropout=0.0)
        head.pairs = pairs
        torch.manual_seed(3)
        loss = model.train().loss(replace(batch(), targets=TARGETS))
        loss.backward()
        found.append((loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_dropout_of_chunks_is_the_same_in_both_passes() -> None:
    """The gradient of the last bias is known only if the pass that is repeated draws what the first drew."""
    model, head = deep(dropout=0.5)
    head.pairs = 6
    torch.manual_seed(3)
    scores = head.scores(model.train().states(batch()), torch.arange(1, NUM_ITEMS + 1))
    last = head.tower.layers[-1]
    weight = last.weight.detach().clone()
    (gradient,) = torch.autograd.grad(scores.sum(), last.weight)
    torch.manual_seed(3)
    with torch.no_grad():
        with_weight = head.scores(model.states(batch()), torch.arange(1, NUM_ITEMS + 1)).sum()
        last.weight.zero_()
        torch.manual_seed(3)
        without = head.scores(model.states(batch()), torch.arange(1, NUM_ITEMS + 1)).sum()
    torch.testing.assert_close((gradient * weight).sum(), with_weight - without, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", ["in-batch", "softmax", "sampled-softmax", "gbce", "bce", "bpr"])
def test_gradients_reach_all_that_the_loss_can_learn(loss: str) -> None:
    model, _ = deep(loss=loss, num_negatives=6, hidden=[16, 16])
    model.eval().loss(replace(batch(), targets=TARGETS)).backward()
    absolute = loss in ("bce", "gbce")
    for name, parameter in model.named_parameters():
        if name == "user_rows.bias":
            assert (parameter.grad is not None) == absolute
        elif name != "head.tower.layers.5.bias":  # as constant as the user's
            assert parameter.grad is not None, name
            assert parameter.grad.ne(0).any(), name


def test_the_candidates_of_a_batch_are_its_distinct_targets() -> None:
    """Without correction the loss is the softmax over them."""
    model, _ = deep(popularity_correction=False)
    scores = model.eval().all_scores(batch())[:, [1, 4, 7]]
    expected = F.cross_entropy(scores, torch.tensor([1, 2, 0, 2]))
    torch.testing.assert_close(model.loss(replace(batch(), targets=TARGETS)), expected)


def test_full_softmax_is_that_of_the_whole_catalog() -> None:
    model, _ = deep(loss="softmax")
    expected = F.cross_entropy(model.eval().all_scores(batch())[:, 1:], TARGETS - 1)
    torch.testing.assert_close(model.loss(replace(batch(), targets=TARGETS)), expected)


def test_in_batch_probabilities_are_those_of_drawing_batches() -> None:
    """An item is a candidate as often as its log probability says."""
    torch.manual_seed(0)
    sampler = InBatchSampler(COUNTS, limit=3, corrected=True)
    shares = torch.from_numpy((COUNTS[1:] + 1) / (COUNTS[1:] + 1).sum())
    seen, log_q, batches = torch.zeros(NUM_ITEMS), torch.zeros(NUM_ITEMS), 4000
    for _ in range(batches):
        targets = torch.multinomial(shares, 5, replacement=True) + 1
        drawn, log_targets, log_drawn = sampler.draw(targets)
        assert len(drawn) == min(3, len(targets.unique()))
        assert set(drawn.tolist()) <= set(targets.tolist())
        seen[drawn - 1] += 1
        present = 1 - (1 - shares.float()) ** 5
        share = len(drawn) / len(targets.unique())
        torch.testing.assert_close(log_drawn.exp(), present[drawn - 1] * share, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(log_targets.exp(), present[targets - 1] * share, rtol=1e-4, atol=1e-6)
        log_q += (1 - (1 - shares.float()) ** 5) * share
    torch.testing.assert_close(seen / batches, log_q / batches, rtol=0.1, atol=0.02)


def test_answers_do_not_depend_on_their_company() -> None:
    """Serving promises it to the last bit, also where pairs go through the network in chunks."""
    generator = np.random.default_rng(0)
    catalog = Catalog(1500, 9, np.ones(1501, np.int64))
    torch.manual_seed(0)
    scorer = Scorer(STUDENTS["deepfm"].make(catalog, {"dim": 16}), reproducible=True)
    histories = [generator.integers(1, 1501, size=5).astype(np.int32) for _ in range(11)]
    items, scores = scorer.top_k(histories, 20)
    for row, history in enumerate(histories):
        alone = scorer.top_k([history], 20)
        assert np.array_equal(alone[0][0], items[row])
        assert np.array_equal(alone[1][0], scores[row])


@pytest.mark.parametrize("negatives", [1, 3])
def test_own_negatives_have_one_loss_and_gradient_whatever_the_chunks(negatives: int) -> None:
    """Few pairs keep their activations, many are computed again; one pair to a chunk computes all again."""
    found = []
    for pairs in (1, 2, 1000):
        torch.manual_seed(0)
        model, head = deep(loss="bce", num_negatives=negatives, shared_negatives=False, dropout=0.0)
        head.pairs = pairs
        torch.manual_seed(1)
        loss = head.loss(model.train().states(batch()), TARGETS)
        found.append((loss, torch.autograd.grad(loss, list(head.tower.parameters()))))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])
    drawn_loss = found[2][0].item()
    assert drawn_loss > 0.1
