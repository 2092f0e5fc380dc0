from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from components.layers import onednn
from components.layers.onednn import MIN_ROWS, fast_products


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what oneDNN was given."""
    found: list[tuple[int, ...]] = []
    product = onednn._product

    def counted(rows: torch.Tensor, *others: Any) -> torch.Tensor:
        found.append(tuple(rows.shape))
        return product(rows, *others)

    monkeypatch.setattr(onednn, "_product", counted)
    return found


def test_products_of_many_rows_are_the_same(taken: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(48, 33), torch.randn(5, MIN_ROWS, 48)
    flat, table = rows.reshape(-1, 48), torch.randn(90, 48)
    with torch.inference_mode():
        expected = layer(rows), F.linear(rows, table), torch.mm(flat, table.t())
        assert taken == []
        with fast_products():
            found = layer(rows), F.linear(rows, table), torch.mm(flat, table.t())
        layer(rows)
    assert taken == [(5, MIN_ROWS, 48), (5, MIN_ROWS, 48), (5 * MIN_ROWS, 48)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


ROWS, WEIGHT = torch.randn(MIN_ROWS, 8), torch.randn(4, 8)


@pytest.mark.parametrize(
    "product",
    [
        lambda: F.linear(ROWS[:-1], WEIGHT),
        lambda: F.linear(ROWS.double(), WEIGHT.double()),
        lambda: F.linear(torch.randn(8, MIN_ROWS).t(), WEIGHT),
        lambda: F.linear(ROWS, weight=WEIGHT),
        lambda: torch.mm(ROWS, torch.randn(8, 4)),
    ],
    ids=["few rows", "64 bits", "strided", "by name", "not transposed"],
)
def test_others_go_their_own_way(product: Callable[[], torch.Tensor], taken: list[tuple[int, ...]]) -> None:
    with torch.inference_mode(), fast_products():
        product()
    assert taken == []


def test_what_learns_is_left_alone(taken: list[tuple[int, ...]]) -> None:
    layer = nn.Linear(8, 4)
    with fast_products():
        layer(ROWS).sum().backward()
    assert taken == []
    assert layer.weight.grad is not None


def test_without_onednn_nothing_changes(monkeypatch: pytest.MonkeyPatch, taken: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.inference_mode(), fast_products():
        F.linear(ROWS, WEIGHT)
    assert taken == []
