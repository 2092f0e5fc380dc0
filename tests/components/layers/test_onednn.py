from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.layers import onednn
from components.layers.onednn import MIN_ROWS, use_onednn


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 33)


@pytest.fixture
def own_way(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes that went to torch's own product."""
    found: list[tuple[int, ...]] = []

    def counted(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found.append(tuple(rows.shape))
        return F.linear(rows, weight, bias)

    monkeypatch.setattr(onednn, "F", SimpleNamespace(linear=counted))
    return found


@pytest.mark.parametrize("shape", [(MIN_ROWS, 48), (5, 40, 48)])
def test_products_of_many_rows_are_the_same(
    layer: nn.Linear, shape: tuple[int, ...], own_way: list[tuple[int, ...]]
) -> None:
    model, rows = nn.Sequential(layer, nn.Tanh()), torch.randn(*shape)
    with torch.inference_mode():
        expected = model(rows)
        use_onednn(model)
        torch.testing.assert_close(model(rows), expected, rtol=1e-5, atol=1e-5)
        strided = rows.transpose(-1, -2).contiguous().transpose(-1, -2)
        torch.testing.assert_close(model(strided), expected, rtol=1e-5, atol=1e-5)
    assert own_way == []


def test_few_rows_and_other_types_go_torchs_own_way(layer: nn.Linear, own_way: list[tuple[int, ...]]) -> None:
    use_onednn(layer)
    with torch.inference_mode():
        layer(torch.randn(MIN_ROWS - 1, 48))
        layer.double()(torch.randn(MIN_ROWS, 48).double())
    assert own_way == [(MIN_ROWS - 1, 48), (MIN_ROWS, 48)]


def test_what_learns_goes_torchs_own_way(layer: nn.Linear, own_way: list[tuple[int, ...]]) -> None:
    use_onednn(layer)
    layer(torch.randn(MIN_ROWS, 48)).sum().backward()
    assert own_way == [(MIN_ROWS, 48)]
    assert layer.weight.grad is not None


def test_a_layer_without_bias_and_a_saved_state_are_as_they_were() -> None:
    layer = nn.Linear(8, 4, bias=False)
    before, rows = list(layer.state_dict()), torch.randn(MIN_ROWS, 8)
    with torch.inference_mode():
        expected = layer(rows)
        use_onednn(layer)
        torch.testing.assert_close(layer(rows), expected, rtol=1e-5, atol=1e-5)
    assert list(layer.state_dict()) == before


def test_without_onednn_nothing_changes(layer: nn.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    use_onednn(layer)
    assert "forward" not in vars(layer)
