from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from components.losses import chunked_cross_entropy


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
