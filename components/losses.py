"""Ranking losses as pure functions of states, item vectors and targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits held at once. On a CPU 2 MiB in fp32, about what a core keeps in its level-2 cache; a GPU wants large products.
CHUNK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 26}


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy of ``scale * states @ table.T``; gradients are made chunk by chunk in the forward pass.

    Holding the gradients of states (P, D) and table (N, D) instead of the logits (P, N) costs no second matrix product,
    and memory does not grow with P x N. All chunks share one buffer: a fresh one for each would cost more in page
    faults than the product that fills it. A row is divided by its sum in the factors (c, D), never in (c, N).
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, targets: Tensor, scale: float, chunk: int) -> Tensor:
        # Under autocast the products run in the lower precision; sums and the table's gradient stay in fp32.
        kind = _product_dtype(states)
        wide = torch.promote_types(kind, torch.float32)
        vectors, low = table.to(kind), states.to(kind)
        products = torch.empty(min(chunk, len(states)), len(table), dtype=kind, device=states.device)
        grad_states = torch.empty_like(states)
        grad_table = torch.zeros(states.shape[1], len(table), dtype=wide, device=states.device)  # (D, N)
        total = states.new_zeros((), dtype=wide)
        factor = scale / max(len(states), 1)
        for begin in range(0, len(states), chunk):
            part = slice(begin, begin + chunk)
            target = targets[part, None]
            logits = torch.mm(low[part], vectors.t(), out=products[: len(target)]).to(wide)  # (c, N)
            if scale != 1.0:
                logits.mul_(scale)
            logits.sub_(logits.amax(dim=1, keepdim=True))
            chosen = logits.gather(1, target)
            sums = logits.exp_().sum(dim=1, keepdim=True)  # (c, 1)
            total += (sums.log() - chosen).sum()
            logits.scatter_add_(1, target, -sums)
            gradient = logits.to(kind)  # d loss / d logits, up to `factor` and a row's sum
            grad_states[part] = torch.mm(gradient, vectors) / sums
            shares = (states[part] / sums).to(kind).t()  # (D, c)
            if kind == wide:
                grad_table.addmm_(shares, gradient)
            else:
                grad_table += torch.mm(shares, gradient)
        ctx.save_for_backward(grad_states.mul_(factor), grad_table.mul_(factor).t().to(table.dtype))
        return total / max(len(states), 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_states, grad_table = ctx.saved_tensors
        upstream = grad_outputs[0]
        return grad_states * upstream, grad_table * upstream, None, None, None


def _product_dtype(states: Tensor) -> torch.dtype:
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def chunked_cross_entropy(
    states: Tensor, table: Tensor, targets: Tensor, *, scale: float = 1.0, chunk_rows: int | None = None
) -> Tensor:
    """Mean softmax cross-entropy over all rows of `table`, without holding P x N logits.

    ``loss = -1/P * sum_i log softmax_j(scale * <states_i, table_j>)[targets_i]`` (PRM-KD, Eq. 4).

    Args:
        states: (P, D).
        table: (N, D) vectors of all items that compete.
        targets: (P,) rows of `table`.
        scale: factor on the logits, 1 / temperature.
        chunk_rows: states per chunk; chosen from N when None.

    Returns:
        A scalar, in nats; 0 when P = 0.

    >>> states, table = torch.zeros(2, 3), torch.zeros(4, 3)
    >>> round(chunked_cross_entropy(states, table, torch.tensor([0, 3])).item(), 4)  # log 4
    1.3863
    """
    if len(states) == 0:
        return (states.sum() + table.sum()) * 0.0
    elements = CHUNK_ELEMENTS.get(table.device.type, CHUNK_ELEMENTS["cuda"])
    chunk = chunk_rows or max(64, elements // len(table))
    result: Tensor = _ChunkedCrossEntropy.apply(states, table, targets, scale, chunk)  # type: ignore[no-untyped-call]
    return result
