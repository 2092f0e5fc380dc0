from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from components.compression.blocks import Blocks, geometric_ranks
from components.compression.embedding import BlockEmbedding
from components.compression.heads import FlatHead, TreeHead
from components.compression.top_items import top_items

EXAMPLE = [0.31123, 0.31123, 0.0472, 0.1416, 0.1258, 0.0629]


def example() -> TreeHead:
    """The tree of check K1: two items, two leaves of two."""
    head = TreeHead(Blocks((2, 4, 6), (2, 1, 1)), 2)
    root = [[1.0, 0.0], [0.0, 0.5], [0.5, 0.0], [0.0, 0.25]]
    with torch.no_grad():
        head.root.copy_(torch.tensor(root))
        head.projections[0].copy_(torch.tensor([[1.0, 0.0]]))
        head.projections[1].copy_(torch.tensor([[0.0, 1.0]]))
        head.leaves[0].copy_(torch.tensor([[0.0], [math.log(3)]]))
        head.leaves[1].copy_(torch.tensor([[math.log(2) / 2], [0.0]]))
    return head


def random_tree(seed: int, dim: int = 6) -> TreeHead:
    generator = np.random.default_rng(seed)
    num_blocks = int(generator.integers(2, 6))
    ends = np.sort(generator.choice(np.arange(1, 61), num_blocks, replace=False))
    torch.manual_seed(seed)
    head = TreeHead(Blocks(tuple(ends.tolist()), geometric_ranks(dim, num_blocks, 2)), dim)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(3)  # so that probabilities differ
    return head


def test_the_worked_tree() -> None:
    """Check K1."""
    head, state = example(), torch.tensor([[1.0, 2.0]])
    probabilities = head.block(state, 1, 7).exp()[0]
    assert probabilities.tolist() == pytest.approx(EXAMPLE, abs=1e-4)
    assert probabilities.sum().item() == pytest.approx(1)
    losses = [head.loss(state, torch.tensor([item])).item() for item in (1, 4, 5)]
    assert losses == pytest.approx([1.16722, 1.95491, 2.07269], abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_probabilities_sum_to_one_and_the_loss_is_their_logarithm(seed: int) -> None:
    """Check K2."""
    head, states = random_tree(seed), torch.randn(11, 6)
    scores = head.block(states, 1, head.num_items + 1)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(11), rtol=0, atol=1e-6)
    targets = torch.randint(1, head.num_items + 1, (11,))
    torch.testing.assert_close(head.loss(states, targets), F.nll_loss(scores, targets - 1))
    candidates = torch.randint(1, head.num_items + 1, (7,))
    torch.testing.assert_close(head.scores(states, candidates), scores[:, candidates - 1])
    stop = min(40, head.num_items)
    torch.testing.assert_close(head.block(head.ready(states), 3, stop), scores[:, 2 : stop - 1])


@pytest.mark.parametrize("seed", range(8))
def test_gradients_of_the_loss_are_those_of_the_scores(seed: int) -> None:
    head = random_tree(seed)
    states, targets = torch.randn(9, 6, requires_grad=True), torch.randint(1, head.num_items + 1, (9,))
    wanted = [states, *head.parameters()]
    found = torch.autograd.grad(head.loss(states, targets), wanted, allow_unused=True)
    loss = F.nll_loss(head.block(states, 1, head.num_items + 1), targets - 1)
    for one, other in zip(found, torch.autograd.grad(loss, wanted), strict=True):
        torch.testing.assert_close(torch.zeros_like(other) if one is None else one, other, rtol=1e-4, atol=1e-6)


def test_a_batch_without_rare_items_leaves_the_leaves_alone() -> None:
    """Check K8."""
    head = random_tree(1)
    own = head.blocks.sizes[0]
    loss = head.loss(torch.randn(5, 6), torch.randint(1, own + 1, (5,)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert head.root.grad is not None
    assert head.root.grad.isfinite().all()
    assert all(parameter.grad is None for name, parameter in head.named_parameters() if name != "root")
    assert head.loss(torch.randn(0, 6), torch.zeros(0, dtype=torch.int64)).item() == 0


@pytest.mark.parametrize("k", [1, 5, 20])
def test_branch_and_bound_equals_the_whole_ranking(k: int) -> None:
    """Check K3: 1,000 random trees; the paper's rule is exact too."""
    visited = possible = 0
    for seed in range(1000):
        head, states = random_tree(seed), torch.randn(2, 6)
        scores = head.block(states, 1, head.num_items + 1)
        kept = min(k, head.num_items)
        values = scores.topk(kept, dim=1).values
        for rule in ("exact", "paper"):
            found = top_items(head, states, k, rule=rule)
            torch.testing.assert_close(found.scores[:, :kept], values)
            torch.testing.assert_close(scores.gather(1, found.items[:, :kept] - 1), values)
            assert not found.items[:, kept:].any()
            if rule == "exact":
                visited, possible = visited + int(found.visited.sum()), possible + 2 * (len(head.blocks) - 1)
            else:
                assert bool((found.visited <= len(head.blocks) - 1).all())
    assert 0 < visited < possible


def test_the_authors_rule_misses_the_best_item() -> None:
    """The counterexample of section 3.2: block B is less probable than block A and holds the best item."""
    head = TreeHead(Blocks((1, 11, 12), (1, 1, 1)), 1)
    with torch.no_grad():
        head.root.copy_(torch.tensor([[0.20], [0.45], [0.35]]).log())
        for parameter in (*head.projections, *head.leaves):
            parameter.zero_()
    state = torch.ones(1, 1)
    assert top_items(head, state, 1, rule="code").items.tolist() == [[1]]
    found = top_items(head, state, 1)
    assert found.items.tolist() == [[12]]
    assert found.scores.exp().item() == pytest.approx(0.35)
    assert found.visited.tolist() == [2]


def test_seen_items_are_left_out() -> None:
    head, states = random_tree(3), torch.randn(4, 6)
    seen = [np.array(items, np.int32) for items in ([1, 2, 3], [], [head.num_items], list(range(1, head.num_items)))]
    scores = head.block(states, 1, head.num_items + 1)
    for row, items in enumerate(seen):
        scores[row, items.astype(np.int64) - 1] = -torch.inf
    found = top_items(head, states, 5, seen)
    torch.testing.assert_close(found.scores, scores.topk(5, dim=1).values)
    assert found.items[3, 0] == head.num_items
    assert not found.scores[3, 1:].isfinite().any()


@pytest.mark.parametrize("tied", [True, False])
def test_a_flat_head_is_one_softmax_over_all_items(tied: bool) -> None:
    torch.manual_seed(0)
    items = BlockEmbedding(Blocks((3, 9, 20), (8, 3, 2)), 8, init_std=1.0)
    head, states = FlatHead(items, tied), torch.randn(6, 8, requires_grad=True)
    targets = torch.tensor([1, 3, 4, 9, 10, 20])
    scores = states @ items.rows(1, 21).t()
    wanted = [states, *items.parameters()]
    found = torch.autograd.grad(head.loss(states, targets), wanted)
    expected = torch.autograd.grad(F.cross_entropy(scores, targets - 1), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(head.scores(states, targets), scores[:, targets - 1])
    assert len(list(head.parameters())) == (0 if tied else len(list(items.parameters())))
