from __future__ import annotations

import numpy as np
import pytest
import torch

from components.layers.embedding import FullEmbedding
from components.losses import bce_loss
from components.students.heads import BiasedHead, NegativeSampler, SampledHead

COUNTS = np.array([0, 70, 20, 7, 0])


@pytest.mark.parametrize("by_popularity", [False, True])
def test_items_are_drawn_as_often_as_their_log_probability_says(by_popularity: bool) -> None:
    torch.manual_seed(0)
    sampler = NegativeSampler(COUNTS, 200_000, by_popularity, shared=True)
    drawn = sampler(1)
    found = torch.bincount(drawn, minlength=5)[1:] / len(drawn)
    expected = sampler.log_probability(torch.arange(1, 5)).exp()
    assert drawn.min() >= 1
    torch.testing.assert_close(found, expected, atol=0.005, rtol=0)
    assert expected[0].item() == pytest.approx(71 / 101 if by_popularity else 0.25)


def test_shared_and_own_negatives_have_their_shapes() -> None:
    assert NegativeSampler(COUNTS, 3, False, shared=True)(6).shape == (3,)
    assert NegativeSampler(COUNTS, 3, False, shared=False)(6).shape == (6, 3)


@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_compares_the_target_with_what_was_drawn(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    embedding = FullEmbedding(4, 3, init_std=1.0)
    head = SampledHead(embedding, NegativeSampler(COUNTS, 2, False, shared), lambda p, n, *_: bce_loss(p, n))
    states, targets = torch.randn(3, 3), torch.tensor([1, 2, 4])
    drawn = torch.tensor([2, 3]) if shared else torch.tensor([[2, 3], [2, 2], [1, 4]])
    monkeypatch.setattr(head.sampler, "forward", lambda positions: drawn)
    terms = []
    for row, (state, target) in enumerate(zip(states, targets.tolist(), strict=True)):
        others = [item for item in (drawn if shared else drawn[row]).tolist() if item != target]
        scores = torch.stack([state @ embedding.weight[item] for item in [target, *others]])
        signs = torch.tensor([1.0] + [-1.0] * len(others))
        terms.append(torch.nn.functional.softplus(-signs * scores).sum() / 3)
    torch.testing.assert_close(head.loss(states, targets), torch.stack(terms).mean())


def test_nothing_of_the_sampler_is_saved() -> None:
    head = SampledHead(FullEmbedding(4, 3), NegativeSampler(COUNTS, 2, True, True), lambda p, n, *_: bce_loss(p, n))
    assert head.state_dict() == {}


def test_a_bias_is_added_to_the_dot_products() -> None:
    torch.manual_seed(0)
    embedding = FullEmbedding(5, 3, init_std=1.0)
    head = BiasedHead(embedding)
    with torch.no_grad():
        head.bias[1:].normal_()
    states, targets = torch.randn(4, 3, requires_grad=True), torch.tensor([1, 5, 2, 2])
    logits = states @ embedding.weight[1:].t() + head.bias[1:]
    torch.testing.assert_close(head.block(states, 1, 6), logits)
    torch.testing.assert_close(head.block(states, 3, 5), logits[:, 2:4])
    torch.testing.assert_close(head.scores(states, torch.tensor([4, 1])), logits[:, [3, 0]])
    parts = (states, embedding.weight, head.bias)
    plain = torch.nn.functional.cross_entropy(logits, targets - 1)
    torch.testing.assert_close(head.loss(states, targets), plain)
    expected = torch.autograd.grad(plain, parts)
    found = torch.autograd.grad(head.loss(states, targets), parts)
    torch.testing.assert_close(found, expected)
    assert found[2][0] == 0.0
    assert head.loss(states[:0], targets[:0]).item() == 0.0
