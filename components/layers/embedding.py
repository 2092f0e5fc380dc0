"""Item embeddings: what a student looks items up in, and what its output head compares states with."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from components.schema import PAD


class ItemEmbedding(Protocol):
    """The plug that compression replaces: look-up by item number, and all vectors as a table."""

    num_items: int
    dim: int

    def __call__(self, items: Tensor) -> Tensor:
        """(...) item numbers -> (..., D) vectors; PAD gives zeros."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, D) vectors of consecutive items."""
        ...


class FullEmbedding(nn.Module):
    """One vector of width D per item.

    Args:
        num_items: N; the table has N + 1 rows, row 0 belongs to PAD and stays zero.
        dim: D.
        init_std: standard deviation of the start.
    """

    def __init__(self, num_items: int, dim: int, init_std: float = 0.02) -> None:
        super().__init__()
        self.num_items, self.dim = num_items, dim
        self.weight = nn.Parameter(torch.empty(num_items + 1, dim))
        nn.init.normal_(self.weight, std=init_std)
        with torch.no_grad():
            self.weight[PAD].zero_()

    def forward(self, items: Tensor) -> Tensor:
        """(...) -> (..., D)."""
        return nn.functional.embedding(items, self.weight, padding_idx=PAD)

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, D)."""
        return self.weight[start:stop]
