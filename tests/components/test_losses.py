from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from components.losses import (
    bce_loss,
    bpr_loss,
    chunked_cross_entropy,
    gbce_beta,
    gbce_loss,
    mean_bpr_loss,
    repeated_cross_entropy,
    sampled_softmax_loss,
)


@pytest.mark.parametrize("chunk", [1, 7, 64, None])
@pytest.mark.parametrize("scale", [1.0, 14.0])
def test_equals_plain_cross_entropy_with_gradients(chunk: int | None, scale: float) -> None:
    torch.manual_seed(0)
    states = torch.randn(33, 8, dtype=torch.float64, requires_grad=True)
    table = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (33,))
    plain = F.cross_entropy(scale * states @ table.t(), targets)
    expected = torch.autograd.grad(3.0 * plain, (states, table))
    ours = chunked_cross_entropy(states, table, targets, scale=scale, chunk_rows=chunk)
    found = torch.autograd.grad(3.0 * ours, (states, table))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(found, expected)


def test_probability_that_underflows_keeps_its_loss() -> None:
    states, table = torch.tensor([[1.0]]), torch.tensor([[0.0], [500.0]])
    assert chunked_cross_entropy(states, table, torch.tensor([0])).item() == pytest.approx(500.0)


def test_empty_batch_is_zero_and_has_gradients() -> None:
    states = torch.zeros(0, 4, requires_grad=True)
    table = torch.randn(5, 4, requires_grad=True)
    loss = chunked_cross_entropy(states, table, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert table.grad is not None
    assert not table.grad.any()


def test_holds_no_full_logits() -> None:
    """Memory that autograd keeps is that of states and table, whatever P x N would be."""
    kept: list[int] = []
    states, table = torch.randn(300, 4, requires_grad=True), torch.randn(2000, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        chunked_cross_entropy(states, table, torch.randint(0, 2000, (300,)))
    assert kept
    assert max(kept) <= table.numel()


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_repeated_states_give_the_plain_cross_entropy_with_gradients(chunk: int | None) -> None:
    torch.manual_seed(0)
    states = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    table = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    repeats, targets = torch.tensor([3, 1, 5, 2]), torch.randint(0, 50, (11,))
    plain = F.cross_entropy(states.repeat_interleave(repeats, dim=0) @ table.t(), targets)
    expected = torch.autograd.grad(3.0 * plain, (states, table))
    ours = repeated_cross_entropy(states, table, targets, repeats=repeats, chunk_rows=chunk)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(torch.autograd.grad(3.0 * ours, (states, table)), expected)


def test_no_repeated_state_is_zero_and_has_gradients() -> None:
    states, table = torch.zeros(0, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = repeated_cross_entropy(states, table, none, repeats=none)
    loss.backward()
    assert loss.item() == 0.0
    assert table.grad is not None
    assert not table.grad.any()


def scores(rows: int = 5, negatives: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, generator=generator), torch.randn(rows, negatives, generator=generator)


def test_bce_is_torchs_binary_cross_entropy() -> None:
    positive, negative = scores()
    logits = torch.cat([positive[:, None], negative], dim=1)
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1.0
    torch.testing.assert_close(bce_loss(positive, negative), F.binary_cross_entropy_with_logits(logits, labels))


def test_gbce_is_the_paper_s_formula_and_bce_without_calibration() -> None:
    positive, negative = scores()
    expected = 0.0
    for own, others in zip(positive.tolist(), negative.tolist(), strict=True):
        terms = [-math.log((1 / (1 + math.exp(-own))) ** 0.3)]
        terms += [-math.log(1 - 1 / (1 + math.exp(-score))) for score in others]
        expected += sum(terms) / len(terms) / len(positive)
    assert gbce_loss(positive, negative, beta=0.3).item() == pytest.approx(expected, rel=1e-5)
    assert gbce_beta(500, 10, calibration=0.0) == pytest.approx(1.0)
    torch.testing.assert_close(gbce_loss(positive, negative, gbce_beta(500, 10, 0.0)), bce_loss(positive, negative))


def test_bpr_is_the_mean_over_all_pairs() -> None:
    positive, negative = scores()
    pairs = [-math.log(1 / (1 + math.exp(n - p))) for p, row in zip(positive, negative, strict=True) for n in row]
    assert bpr_loss(positive, negative).item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


def test_sampled_softmax_over_all_items_is_the_softmax() -> None:
    """With every other item drawn once and equal probabilities, nothing is left to correct."""
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(2))
    targets = torch.arange(6)
    positive = logits.gather(1, targets[:, None])[:, 0]
    negative = logits.masked_fill(F.one_hot(targets, 9).bool(), -torch.inf)
    same = torch.full((9,), -math.log(9))
    found = sampled_softmax_loss(positive, negative, same[targets], same)
    torch.testing.assert_close(found, F.cross_entropy(logits, targets))


def test_the_correction_makes_sampled_softmax_right_on_average() -> None:
    """exp(-loss) times the target's weight estimates its probability, although popular items are drawn more often."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50, generator=generator)
    shares = torch.softmax(2.0 * torch.randn(50, generator=generator), dim=0)
    target, drawn = 0, torch.multinomial(shares, 40_000, replacement=True, generator=generator)
    drawn = drawn[drawn != target]
    mean = (logits[drawn] - shares[drawn].log()).logsumexp(0) - math.log(40_000)
    others = torch.cat([logits[:target], logits[target + 1 :]]).logsumexp(0)
    assert mean.item() == pytest.approx(others.item(), abs=0.05)


@pytest.mark.parametrize("loss", [bce_loss, bpr_loss])
def test_a_negative_taken_out_counts_for_nothing(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    positive, negative = (part.requires_grad_() for part in scores())
    hit = torch.zeros(5, 7, dtype=torch.bool)
    hit[:, 2] = True
    loss(positive, negative.masked_fill(hit, -torch.inf)).backward()
    assert not negative.grad[:, 2].any()
    assert torch.isfinite(positive.grad).all()


def test_mean_bpr_compares_with_the_mean_of_the_negatives_that_count() -> None:
    positive = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    negative = torch.tensor([[1.0, 3.0], [0.25, -torch.inf], [-torch.inf, -torch.inf]], requires_grad=True)
    expected = (math.log(1 + math.exp(2.0 - 0.5)) + math.log(1 + math.exp(0.25 + 1.0))) / 3
    loss = mean_bpr_loss(positive, negative)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert positive.grad is not None
    assert negative.grad is not None
    assert positive.grad[2] == 0.0
    assert (negative.grad != 0).tolist() == [[True, True], [True, False], [False, False]]
