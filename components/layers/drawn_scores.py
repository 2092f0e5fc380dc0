"""Scores of states with items drawn for each of them, by whichever way is cheaper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from components.layers.embedding import ItemEmbedding

CHUNK_ELEMENTS = 1 << 19  # scores held at once: 2 MiB in fp32, about a core's level-2 cache
# Where a state has many items of its own, the product with the whole catalog is cheaper on a CPU than fetching a vector
# per pair and adding its gradient back: per multiplication some 90 times (d 64, 3,416 items, 256 drawn).
DENSE_RATIO = 32


def drawn_scores(states: Tensor, item_embedding: ItemEmbedding, drawn: Tensor) -> Tensor:
    """``<states_i, vector of drawn_ij>``.

    Args:
        states: (P, D).
        item_embedding: the vectors.
        drawn: (P, m) item numbers, 1..N; repeats are possible.

    Returns:
        (P, m), differentiable.
    """
    plain = states.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if plain and item_embedding.num_items <= DENSE_RATIO * drawn.shape[1]:
        table = item_embedding.rows(1, item_embedding.num_items + 1)
        scores: Tensor = _DenseScores.apply(states, table, drawn - 1)  # type: ignore[no-untyped-call]
        return scores
    dots: Tensor = torch.linalg.vecdot(item_embedding(drawn), states[:, None])
    return dots


class _DenseScores(torch.autograd.Function):
    """Columns of ``states @ table.T``, a few rows at a time; a gradient is put back into such rows for two products."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(states, table, columns)
        scores = states.new_empty(columns.shape)
        for part in _chunks(len(states), len(table)):
            torch.gather(states[part] @ table.t(), 1, columns[part], out=scores[part])
        return scores

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        states, table, columns = ctx.saved_tensors
        grad_states, grad_table = torch.empty_like(states), states.new_zeros(states.shape[1], len(table))  # (D, N)
        for part in _chunks(len(states), len(table)):
            rows = states.new_zeros(len(states[part]), len(table))
            rows.scatter_add_(1, columns[part], grad_outputs[0][part])
            grad_states[part] = rows @ table
            grad_table.addmm_(states[part].t(), rows)
        return grad_states, grad_table.t(), None


def _chunks(num_states: int, num_items: int) -> list[slice]:
    size = max(64, CHUNK_ELEMENTS // num_items)
    return [slice(begin, begin + size) for begin in range(0, num_states, size)]
