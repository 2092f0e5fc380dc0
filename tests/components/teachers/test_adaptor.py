from __future__ import annotations

import pytest
import torch

from components.teachers import adaptor as module
from components.teachers.adaptor import MoEAdaptor, PWLayer, Whitening


@pytest.mark.parametrize(("in_dim", "expected"), [(768, 1_861_632), (384, 930_816)])
def test_t1_parameters(in_dim: int, expected: int) -> None:
    adaptor = MoEAdaptor(in_dim, 300, num_experts=8)
    assert sum(parameter.numel() for parameter in adaptor.parameters()) == expected


def test_t2_gates_are_uniform_at_the_start_of_evaluation() -> None:
    adaptor = MoEAdaptor(16, 4, num_experts=8).eval()
    assert torch.equal(adaptor.gates(torch.randn(5, 16) * 100), torch.full((5, 8), 1 / 8))


def test_t2_parametric_whitening_by_hand() -> None:
    layer = PWLayer(2, 1).eval()
    with torch.no_grad():
        layer.bias.fill_(1.0)
        layer.weight.copy_(torch.tensor([[1.0], [2.0]]))
    assert layer(torch.tensor([3.0, 1.0])).item() == 2.0


def spread(adaptor: MoEAdaptor) -> MoEAdaptor:
    with torch.no_grad():
        for parameter in adaptor.parameters():
            parameter.normal_()
    return adaptor


def naive(adaptor: MoEAdaptor, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    parts = [gates[:, g : g + 1] * ((x - adaptor.bias[g]) @ adaptor.weight[g]) for g in range(adaptor.num_experts)]
    return torch.stack(parts).sum(dim=0)


def test_one_product_equals_a_sum_over_experts() -> None:
    torch.manual_seed(0)
    adaptor, x = spread(MoEAdaptor(6, 3, num_experts=4)).eval().double(), torch.randn(7, 6, dtype=torch.float64)
    gates = (x @ adaptor.gate).softmax(dim=1)
    torch.testing.assert_close(adaptor(x), naive(adaptor, x, gates))
    ours = torch.autograd.grad(adaptor(x).square().sum(), list(adaptor.parameters()), allow_unused=True)
    plain = torch.autograd.grad(
        naive(adaptor, x, (x @ adaptor.gate).softmax(1)).square().sum(), list(adaptor.parameters()), allow_unused=True
    )
    for name, one, other in zip(dict(adaptor.named_parameters()), ours, plain, strict=True):
        assert (one is None) == (other is None) == (name == "noise"), name
        if one is not None:
            torch.testing.assert_close(one, other)


def test_gates_are_noisy_in_training_only() -> None:
    torch.manual_seed(0)
    adaptor, x = MoEAdaptor(6, 3, num_experts=4, dropout=0.0), torch.randn(2000, 6)
    gates = adaptor.train().gates(x)
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(2000))
    # At the start logits are eps * (softplus(0) + 0.01): the gates' log-ratio has that spread times sqrt(2).
    ratio = (gates[:, 0] / gates[:, 1]).log()
    assert ratio.std().item() == pytest.approx((torch.tensor(2.0).log().item() + 0.01) * 2**0.5, rel=0.06)
    gates.square().sum().backward()
    assert adaptor.noise.grad is not None
    assert adaptor.noise.grad.any()
    assert torch.equal(adaptor.eval().gates(x), adaptor.gates(x))


def test_input_dropout_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    adaptor, x = MoEAdaptor(64, 2, num_experts=2, dropout=0.5), torch.ones(1, 64)
    mean = torch.stack([adaptor.train()(x)[0] for _ in range(4000)]).mean(dim=0)
    torch.testing.assert_close(mean, adaptor.eval()(x)[0], atol=0.02, rtol=0.0)


def test_many_rows_in_chunks_equal_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    adaptor, x = spread(MoEAdaptor(6, 3, num_experts=4, dropout=0.0)).eval(), torch.randn(10, 6)
    whole = adaptor(x)
    (gradient,) = torch.autograd.grad(whole.square().sum(), [adaptor.weight])
    monkeypatch.setattr(module, "CHUNK_ROWS", 4)
    pieces = adaptor(x)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces.square().sum(), [adaptor.weight])[0], gradient)


def test_autocast_returns_the_input_type() -> None:
    adaptor, x = spread(MoEAdaptor(32, 8)).eval(), torch.randn(9, 32)
    with torch.autocast("cpu", torch.bfloat16):
        low = adaptor(x)
    assert low.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low, adaptor(x)).min() > 0.999


def test_whitened_rows_have_mean_0_and_covariance_identity() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 12) @ torch.randn(12, 12) + 5
    whitening = Whitening(12)
    whitening.fit(x)
    white = whitening(x)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(12), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(white.t() @ white / 500, torch.eye(12), atol=2e-2, rtol=0.0)


def test_whitening_does_not_blow_up_directions_without_variance() -> None:
    x = torch.randn(50, 8)
    x[:, 3] = 2.0
    whitening = Whitening(8)
    whitening.fit(x)
    assert whitening(x).isfinite().all()
    assert whitening(x)[:, 3].abs().max() < 0.1
    nothing = Whitening(4)
    nothing.fit(torch.zeros(3, 4))
    assert nothing(torch.zeros(3, 4)).isfinite().all()
