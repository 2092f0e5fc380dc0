"""Encodes many histories at once without one of them changing another, to the last bit.

Matrix kernels change with the number of rows, and sums over attention weights with the padding. Here the items of all
histories stand in one long list without padding; products run over pieces of exactly `TOKENS` items or `ROWS`
histories, or of `WIDE` where this machine's kernels give the same bits for those; and attention, which takes one
history after the other, sees grids that are always as wide as the longest history that the encoder knows. What a
history gives is then a function of the history alone. One history costs what it costs without this, 32 together a sixth
to a tenth of that each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from components.layers.transformer import SelfAttention, TransformerBlock, TransformerEncoder

TOKENS: Final = 32  # rows of a product over items
ROWS: Final = 8  # rows of a product over histories
WIDE: Final = 128  # rows of a product over many items, a fifth cheaper per row
EVEN: Final = 8  # widths are multiples of it: of other narrow ones, kernels compute some rows of a product differently


@dataclass(frozen=True)
class Packing:
    """Where the items of B histories stand, M in all.

    Attributes:
        width: columns of the grids in which attention sees them.
        lengths: (B,) items of every history.
        cells: (M,) flat indices of the items in the B x `width` grid, ascending.
    """

    width: int
    lengths: Tensor
    cells: Tensor

    def grid(self, rows: Tensor) -> Tensor:
        """(M, D) -> (B, width, D), zeros where nothing stands."""
        flat = rows.new_zeros(len(self.lengths) * self.width, rows.shape[1])
        flat[self.cells] = rows
        return flat.view(-1, self.width, rows.shape[1])


def can_pack(encoder: TransformerEncoder) -> bool:
    """Whether the encoder's widths are such that `packed_states` keeps its promise."""
    blocks = (cast(TransformerBlock, block) for block in encoder.blocks)
    return all(
        layer.in_features % EVEN == layer.out_features % EVEN == 0 for layer in (block.expand for block in blocks)
    )


def packed_states(encoder: TransformerEncoder, vectors: Tensor, lengths: Tensor) -> Tensor:
    """The encoder's states at the last position of every history; it must be in evaluation mode.

    Args:
        encoder: causal, and as `can_pack` wants it.
        vectors: (M, D) item vectors, history after history.
        lengths: (B,) items of every history, at least one each and no more than the encoder has positions.

    Returns:
        (B, D) states.
    """
    count, width = len(vectors), len(encoder.position_embedding.weight)
    ends = lengths.cumsum(0)
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths, output_size=count)
    places = torch.arange(count, device=lengths.device) - (ends - lengths)[rows]
    packing = Packing(width, lengths, rows * width + places)
    x = encoder.input_norm(vectors + encoder.position_embedding.weight[places])
    *inner, last = (cast(TransformerBlock, block) for block in encoder.blocks)
    for block in inner:
        x = _whole(block, x, packing)
    result: Tensor = encoder.output_norm(_last(last, x, ends - 1, packing))
    return result


def _whole(block: TransformerBlock, x: Tensor, packing: Packing) -> Tensor:
    """(M, D) -> (M, D): a block at every position."""
    attention, dim = block.attention, x.shape[1]
    weights = attention.project_in
    projected = _linear(_entered(block, x), weights.weight, weights.bias, TOKENS)
    query, key, value = (_split(part, attention) for part in packing.grid(projected).chunk(3, dim=-1))
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, H, width, D / H)
    flat = mixed.transpose(1, 2).reshape(-1, dim)[packing.cells]
    return _finished(block, x, flat, TOKENS)


def _last(block: TransformerBlock, x: Tensor, ends: Tensor, packing: Packing) -> Tensor:
    """(M, D) -> (B, D): a block at the last positions alone."""
    attention, dim = block.attention, x.shape[1]
    weight, bias = attention.project_in.weight, attention.project_in.bias
    entered, chosen = _entered(block, x), x[ends]
    query = _split(_linear(entered[ends], weight[:dim], bias[:dim], ROWS)[:, None], attention)  # (B, H, 1, D / H)
    pairs = packing.grid(_linear(entered, weight[dim:], bias[dim:], TOKENS))
    key, value = (_split(part, attention) for part in pairs.chunk(2, dim=-1))
    columns = torch.arange(packing.width, device=x.device)
    visible = (columns < packing.lengths[:, None])[:, None, None, :]  # (B, 1, 1, width)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    return _finished(block, chosen, mixed.reshape(-1, dim), ROWS)


def _entered(block: TransformerBlock, x: Tensor) -> Tensor:
    """What attention reads."""
    return cast(Tensor, block.attention_norm(x)) if block.norm == "pre" else x


def _finished(block: TransformerBlock, x: Tensor, mixed: Tensor, size: int) -> Tensor:
    """(P, D) inputs and what attention mixed for them -> (P, D) outputs of the block."""
    project = block.attention.project_out
    x = x + _linear(mixed, project.weight, project.bias, size)
    if block.norm == "post":
        x = block.attention_norm(x)
    inner = block.network_norm(x) if block.norm == "pre" else x
    wide = _same_bits(block.expand.weight.shape) and _same_bits(block.contract.weight.shape)
    out = x + _in_pieces(inner, size, lambda rows: block.contract(block.activation(block.expand(rows))), wide)
    result: Tensor = out if block.norm == "pre" else block.network_norm(out)
    return result


def _split(x: Tensor, attention: SelfAttention) -> Tensor:
    """(B, L, D) -> (B, H, L, D / H)."""
    return x.view(*x.shape[:2], attention.num_heads, -1).transpose(1, 2)


def _linear(x: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    """(P, D) -> (P, E)."""
    return _in_pieces(x, size, lambda rows: F.linear(rows, weight, bias), _same_bits(weight.shape))


def _in_pieces(x: Tensor, size: int, apply: Callable[[Tensor], Tensor], wide: bool) -> Tensor:
    """`apply` to (P, D) in pieces of exactly `size` rows, or `WIDE` ones where they are many and may be `wide`."""
    many = len(x) // WIDE * WIDE if wide and size == TOKENS else 0
    pieces = [apply(piece) for piece in torch.split(x[:many], WIDE)] if many else []
    if many < len(x):
        padded = F.pad(x[many:], (0, 0, 0, (many - len(x)) % size))
        pieces += [apply(piece) for piece in torch.split(padded, size)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces))[: len(x)]


@cache
def _same_bits(shape: torch.Size) -> bool:
    """Whether a product with a matrix of this (E, D) shape gives `WIDE` rows the bits that `TOKENS` rows get on a CPU.

    What a kernel does with a row depends on the shapes alone, so that one draw tells.
    """
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (torch.randn(*each, generator=generator) for each in ((WIDE, shape[1]), shape, shape[:1]))
    narrow = torch.cat([F.linear(piece, weight, bias) for piece in torch.split(rows, TOKENS)])
    return torch.equal(F.linear(rows, weight, bias), narrow)
