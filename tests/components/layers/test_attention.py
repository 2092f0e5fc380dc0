from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from components.layers import attention
from components.layers.attention import dropped_attention
from components.layers.dropout import Dropout, draw_bytes, keep_factor, kept
from components.layers.transformer import gelu


@pytest.mark.parametrize("length", [1, 5, 64, 65, 150])
def test_without_drops_equals_the_fused_kernel(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "draw_bytes", lambda shape: torch.full(shape, 255, dtype=torch.uint8))
    monkeypatch.setattr(attention, "keep_factor", lambda rate: 1.0)
    torch.manual_seed(0)
    parts = [torch.randn(3, 2, length, 16, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(3, 2, length, 16, dtype=torch.float64)
    ours, plain = dropped_attention(*parts, 0.2), F.scaled_dot_product_attention(*parts, is_causal=True)
    torch.testing.assert_close(ours, plain)
    found, expected = (torch.autograd.grad(out, parts, upstream) for out in (ours, plain))
    torch.testing.assert_close(found, expected)


def test_gradient_with_a_fixed_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed(shape: torch.Size) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))

    monkeypatch.setattr(attention, "draw_bytes", fixed)
    parts = [torch.randn(1, 2, 6, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: dropped_attention(q, k, v, 0.3), parts)


def test_mean_over_many_draws_is_the_attention_without_drops() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(1, 1, 12, 4) for _ in range(3)]
    mean = torch.stack([dropped_attention(*parts, 0.25) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, F.scaled_dot_product_attention(*parts, is_causal=True), atol=0.06, rtol=0)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_dropout_rate_and_expectation(rate: float) -> None:
    torch.manual_seed(0)
    survivors = kept(draw_bytes(torch.Size([200_003])), rate, torch.float32)
    assert set(survivors.unique().tolist()) == {0.0, 1.0}
    assert 1 - survivors.mean().item() == pytest.approx(rate, abs=0.005)
    assert (survivors * keep_factor(rate)).mean().item() == pytest.approx(1.0, abs=0.02)


def test_the_gradient_passes_where_the_value_did() -> None:
    x = torch.randn(40, 30, requires_grad=True)
    upstream = torch.randn(40, 30)
    out = Dropout(0.25)(x)
    out.backward(upstream)
    kept = (out != 0).float() / 0.75
    torch.testing.assert_close(out.detach(), x.detach() * kept)
    torch.testing.assert_close(x.grad, upstream * kept)


def test_dropout_is_off_in_evaluation_and_refuses_a_wrong_rate() -> None:
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1.0"):
        Dropout(1.0)


def test_gelu_is_gelu_with_its_gradient() -> None:
    ours = torch.randn(3, 5, 7, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    upstream = torch.randn(3, 5, 7)
    gelu(ours).backward(upstream)
    F.gelu(theirs).backward(upstream)
    torch.testing.assert_close(gelu(ours), F.gelu(theirs))
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert gelu(ours).is_contiguous()
