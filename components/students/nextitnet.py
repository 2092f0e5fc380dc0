"""NextItNet: residual blocks of dilated causal convolutions over the history (Yuan et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast, get_args

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from components.compression.sharing import Sharing, shared_kernels
from components.layers.dropout import Dropout
from components.model import Catalog
from components.students.sequential import (
    SequentialConfig,
    SequentialStudent,
    assemble,
    at_positions,
    make_item_embedding,
)

Offsets = tuple[int, ...]  # how many items before the last one, ascending
WIDE = 256  # states; from here on one row alone is faster without what nobody reads, too


class NextItNetConfig(SequentialConfig):
    """Arguments of NextItNet."""

    sharings: ClassVar[tuple[Sharing, ...]] = get_args(Sharing)

    dropout: float = Field(0.2, ge=0, lt=1, description="rate on item vectors; the paper has none")
    kernel_size: int = Field(3, ge=2, description="items that a convolution combines")
    dilations: tuple[PositiveInt, ...] = Field(
        (1, 4), min_length=1, description="one per block; its second convolution has twice as much"
    )
    num_repeats: int = Field(2, ge=1, description="how often the list of dilations is repeated")


class CausalConvolution(nn.Module):
    """1-D convolution over the present item and items before it; the caller says how far they lie apart.

    The dilation is no part of the module, so that blocks of different dilations can share it. On a CPU one matrix
    product over the copied taps trains a block a quarter faster than `F.conv1d`, which wants (B, D, L) where the layer
    norm wants (B, L, D), and leaves no compiled kernel behind for every length of a batch.

    Args:
        dim: D, channels in and out.
        kernel_size: K.
    """

    def __init__(self, dim: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(dim, kernel_size * dim))  # the oldest tap's D columns come first
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.trunc_normal_(self.weight, std=0.02, a=-0.04, b=0.04)

    def forward(self, x: Tensor, dilation: int) -> Tensor:
        """(B, L, D) -> (B, L, D); before a row's first item come zeros."""
        length, reach = x.shape[1], (self.kernel_size - 1) * dilation
        padded = F.pad(x, (0, 0, reach, 0))
        taps = [padded[:, begin : begin + length] for begin in range(0, reach + 1, dilation)]
        return F.linear(torch.cat(taps, dim=-1), self.weight, self.bias)

    def at(self, x: Tensor, given: Offsets, wanted: Offsets, dilation: int) -> Tensor:
        """(B, len(given), D) inputs at the offsets `given` -> (B, len(wanted), D) outputs at `wanted`."""
        place = {offset: index for index, offset in enumerate(given)}
        taps = [
            [place.get(offset + step * dilation, len(given)) for step in reversed(range(self.kernel_size))]
            for offset in wanted
        ]
        padded = F.pad(x, (0, 0, 0, 1))  # the last row, zeros, stands for what no row of the batch reaches
        chosen = padded.index_select(1, torch.tensor(taps, device=x.device).flatten())  # (B, wanted * K, D)
        return F.linear(chosen.view(len(x), len(wanted), -1), self.weight, self.bias)


class ResidualBlock(nn.Module):
    """``x + relu(LN(conv_2d(relu(LN(conv_d(x))))))`` for a dilation d (Yuan et al. 2019, Fig. 3b).

    Args:
        first: the convolution with `dilation`; blocks may share it.
        second: the convolution with ``2 * dilation``; blocks may share it.
        dim: D; the two layer norms are the block's own.
        dilation: d, at least 1.
    """

    def __init__(self, first: CausalConvolution, second: CausalConvolution, dim: int, dilation: int) -> None:
        super().__init__()
        if dilation < 1:
            raise ValueError(f"dilation must be at least 1, got {dilation}")
        self.first, self.second, self.dilation = first, second, dilation
        self.first_norm, self.second_norm = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        inner = F.relu(self.first_norm(self.first(x, self.dilation)), inplace=True)
        return x + F.relu(self.second_norm(self.second(inner, 2 * self.dilation)), inplace=True)

    def at(self, x: Tensor, given: Offsets, wanted: Offsets, columns: Tensor) -> Tensor:
        """`forward` at some offsets from one column of every row.

        Args:
            x: (B, len(given), D) inputs, zeros before a row's first item.
            given: all that `reads` says of `wanted`, unless it lies before the longest row's first item.
            wanted: the offsets of the outputs.
            columns: (B,) where in its row offset 0 lies.

        Returns:
            (B, len(wanted), D), zeros before a row's first item.
        """
        farthest = given[-1] + 1
        middle = spread(wanted, 2 * self.dilation, self.second.kernel_size, farthest)
        inner = F.relu(self.first_norm(self.first.at(x, given, middle, self.dilation)))
        inner = inner * inside(columns, middle)
        outer = F.relu(self.second_norm(self.second.at(inner, middle, wanted, 2 * self.dilation)))
        kept = torch.tensor([given.index(offset) for offset in wanted], device=x.device)
        return (x[:, kept] + outer) * inside(columns, wanted)

    def reads(self, wanted: Offsets, length: int) -> Offsets:
        """The offsets of the inputs on which outputs at `wanted` depend; a row has `length` columns."""
        middle = spread(wanted, 2 * self.dilation, self.second.kernel_size, length)
        return spread(middle, self.dilation, self.first.kernel_size, length)


class NextItNet(nn.Module):
    """Item vectors of a history -> one state per predicted position: dropout -> blocks -> output layer.

    A state sees ``1 + sum 3 (K - 1) d`` items, d over the blocks.

    Args:
        blocks: of which one begins where the one before ends.
        output: (P, D) -> (P, D). What blocks add is never negative; where scores are products with the very vectors
            that the network reads, a linear layer frees the signs of a state.
        dropout: rate on item vectors.
    """

    def __init__(self, blocks: Sequence[ResidualBlock], output: nn.Module, dropout: float) -> None:
        super().__init__()
        self.blocks, self.output, self.dropout = nn.ModuleList(blocks), output, Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D), (P,) -> (P, D); in evaluation `last_only` computes only what the last states depend on.

        A narrow row alone is computed whole, which takes less time than the bookkeeping.
        """
        x = self.dropout(x)
        worth = (len(x) > 1 or x.shape[2] >= WIDE) and not torch.onnx.is_in_onnx_export()  # a graph is for any length
        if last_only and not self.training and len(positions) == len(x) and worth:
            last = self._last(x, positions % x.shape[1])
        else:
            for block in self.blocks:
                x = block(x)
            last = at_positions(x, positions)
        states: Tensor = self.output(last)
        return states

    def _last(self, x: Tensor, columns: Tensor) -> Tensor:
        """(B, L, D), (B,) -> (B, D): the blocks' output at one column of every row.

        What a block must give for it grows toward the input; blocks of which half the row is wanted give all of it.
        """
        length = x.shape[1]
        blocks = [cast(ResidualBlock, block) for block in self.blocks]
        wanted: list[Offsets] = [(0,)]
        sparse: list[ResidualBlock] = []
        for block in reversed(blocks):
            if 2 * len(wanted[0]) > length:
                break
            wanted.insert(0, block.reads(wanted[0], length))
            sparse.insert(0, block)
        for block in blocks[: len(blocks) - len(sparse)]:
            x = block(x)
        index = columns[:, None] - torch.tensor(wanted[0], device=x.device)  # (B, offsets)
        rows = torch.arange(len(x), device=x.device)[:, None]
        x = x[rows, index.clamp(min=0)] * inside(columns, wanted[0])
        for block, given, outputs in zip(sparse, wanted[:-1], wanted[1:], strict=True):
            x = block.at(x, given, outputs, columns)
        return x[:, 0]


def spread(wanted: Offsets, dilation: int, kernel_size: int, length: int) -> Offsets:
    """The offsets below `length` that a convolution reads for outputs at `wanted`.

    >>> spread((0, 4), dilation=2, kernel_size=3, length=8)
    (0, 2, 4, 6)
    """
    taps = range(0, kernel_size * dilation, dilation)
    return tuple(sorted({offset + tap for offset in wanted for tap in taps if offset + tap < length}))


def inside(columns: Tensor, offsets: Offsets) -> Tensor:
    """(B, len(offsets), 1) whether a row has begun so many items before its column."""
    return (columns[:, None] >= torch.tensor(offsets, device=columns.device))[..., None]


def build(catalog: Catalog, config: NextItNetConfig) -> SequentialStudent:
    """Build a NextItNet; if it is not compressed, item vectors are tied and every block has its own convolutions."""
    dim, dilations = config.dim, config.dilations * config.num_repeats
    item_embedding = make_item_embedding(catalog, config)
    kernels = shared_kernels(len(dilations), config.compression.sharing if config.compression else "none")
    distinct = dict.fromkeys(number for pair in kernels for number in pair)
    made = {number: CausalConvolution(dim, config.kernel_size) for number in distinct}
    blocks = [
        ResidualBlock(made[first], made[second], dim, dilation)
        for (first, second), dilation in zip(kernels, dilations, strict=True)
    ]
    network = NextItNet(blocks, nn.Linear(dim, dim), config.dropout)
    return assemble(catalog, config, item_embedding, network)
