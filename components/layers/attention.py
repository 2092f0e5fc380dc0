"""Causal attention with dropout on its weights, in tiles that stay in a core's cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from components.layers.dropout import draw_bytes, keep_factor, kept

TILE_ELEMENTS = 1 << 18  # attention weights held at once: 1 MiB in fp32
QUERY_TILE = 64  # queries of a tile; keys after the tile's last query are never touched


class _DroppedAttention(torch.autograd.Function):
    """``dropout(softmax(Q K' / sqrt(d)) + causal) V`` for (M, L, d) inputs; the backward pass recomputes the weights.

    PyTorch's fused CPU kernel has no dropout, and its plain path holds (M, L, L) several times and draws slowly. Here
    only one byte per weight survives the forward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rate: float) -> Tensor:
        out = torch.empty_like(query)
        drawn: list[Tensor] = []
        scale = query.shape[-1] ** -0.5
        for rows, queries, keys in _tiles(query.shape[0], query.shape[1]):
            weights = _weights(query[rows, queries], key[rows, keys], scale, queries)
            drawn.append(draw_bytes(weights.shape))
            weights.mul_(kept(drawn[-1], rate, weights.dtype))
            out[rows, queries] = torch.bmm(weights, value[rows, keys]).mul_(keep_factor(rate))
        ctx.save_for_backward(query, key, value, *drawn)
        ctx.rate = rate
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, *drawn = ctx.saved_tensors
        scale = query.shape[-1] ** -0.5
        grads = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for draws, (rows, queries, keys) in zip(drawn, _tiles(query.shape[0], query.shape[1]), strict=True):
            weights = _weights(query[rows, queries], key[rows, keys], scale, queries)
            survivors = kept(draws, ctx.rate, weights.dtype)
            upstream = grad_outputs[0][rows, queries] * keep_factor(ctx.rate)  # (m, q, d)
            inner = (upstream @ value[rows, keys].transpose(1, 2)).mul_(survivors).mul_(weights)
            grads[2][rows, keys] += survivors.mul_(weights).transpose(1, 2) @ upstream
            inner.sub_(weights.mul_(inner.sum(dim=-1, keepdim=True))).mul_(scale)  # d loss / d logits
            grads[0][rows, queries] = inner @ key[rows, keys]
            grads[1][rows, keys] += inner.transpose(1, 2) @ query[rows, queries]
        return (*grads, None)


def _tiles(matrices: int, length: int) -> list[tuple[slice, slice, slice]]:
    """(matrices, queries, keys) slices that cover everything at or below the diagonal."""
    tile = min(QUERY_TILE, length)
    group = max(1, TILE_ELEMENTS // (tile * length))
    return [
        (slice(begin, begin + group), slice(first, min(first + tile, length)), slice(0, min(first + tile, length)))
        for begin in range(0, matrices, group)
        for first in range(0, length, tile)
    ]


def _weights(query: Tensor, key: Tensor, scale: float, queries: slice) -> Tensor:
    """(m, q, k) softmax over the keys that each query may see."""
    rows = torch.arange(queries.start, queries.stop)[:, None]
    hidden = query.new_zeros(query.shape[1], key.shape[1]).masked_fill_(torch.arange(key.shape[1]) > rows, -torch.inf)
    return torch.baddbmm(hidden, query, key.transpose(1, 2), alpha=scale).softmax(dim=-1)


def dropped_attention(query: Tensor, key: Tensor, value: Tensor, rate: float) -> Tensor:
    """Causal attention with dropout `rate` on its weights.

    Args:
        query, key, value: (B, H, L, d).
        rate: rounded to 1/256.

    Returns:
        (B, H, L, d).
    """
    shape = query.shape
    flat = [part.reshape(-1, *shape[2:]) for part in (query, key, value)]
    result: Tensor = _DroppedAttention.apply(*flat, rate)  # type: ignore[no-untyped-call]
    return result.view(shape)
