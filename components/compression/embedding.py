"""Item vectors in blocks: frequent items have wide rows, rare ones narrow rows and a projection (CpRec, 3.2.1)."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.compression.blocks import Blocks
from components.layers.kept import Kept
from components.schema import PAD

DENSE_BYTES: Final = 64 * 2**20  # of all vectors as one table, below which inference keeps it


class BlockEmbedding(nn.Module):
    """``v_x = E_j[x] W_j`` for an item x of block j; a block as wide as the model has no projection W_j.

    Where nothing is trained and the whole table is small it is made once and kept: what is stored stays small, and a
    request costs what it does without blocks.

    Args:
        blocks: the blocks of the catalog.
        dim: D, width of the vectors; no rank may exceed it.
        init_std: standard deviation of the vectors at the start, as that of an uncompressed table.
    """

    def __init__(self, blocks: Blocks, dim: int, init_std: float = 0.02) -> None:
        super().__init__()
        if max(blocks.ranks) > dim:
            raise ValueError(f"no rank may exceed dim {dim}, got {blocks.ranks}")
        self.blocks, self.num_items, self.dim = blocks, blocks.num_items, dim
        self.kept: Kept[Tensor] = Kept()
        self.tables = nn.ParameterList()
        self.projections = nn.ParameterDict()  # by number of the block
        for block, (size, rank) in enumerate(zip(blocks.sizes, blocks.ranks, strict=True)):
            self.tables.append(nn.init.normal_(torch.empty(size, rank), std=init_std))
            if rank < dim:  # vectors begin with the scale of their rows
                self.projections[str(block)] = nn.init.normal_(torch.empty(rank, dim), std=rank**-0.5)
        self.register_load_state_dict_pre_hook(_take_sizes)  # type: ignore[no-untyped-call]

    def forward(self, items: Tensor) -> Tensor:
        """(...) -> (..., D); PAD gives zeros. Every distinct item is projected once."""
        if (table := self.dense()) is not None:
            return F.embedding(items, table)
        distinct, places = torch.unique(items, return_inverse=True)
        found: Tensor = F.embedding(places, torch.cat([self._padding(distinct), *self._vectors(distinct)]))
        return found

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, D)."""
        found: Tensor = self(torch.arange(start, stop, device=self.tables[0].device))
        return found

    def project(self, states: Tensor, block: int) -> Tensor:
        """(P, D) states -> (P, d_j): what meets the rows of block `block` (from 0)."""
        name = str(block)
        found: Tensor = F.linear(states, self.projections[name]) if name in self.projections else states
        return found

    def products(self, states: Tensor, items: Tensor) -> Tensor:
        """(P, D), (C,) -> (P, C) dot products with the vectors of items 1..N, which are never made."""
        numbers = self.blocks.of(items)
        parts, columns = [states.new_empty(len(states), 0)], [items[:0]]
        for block, start in enumerate(self.blocks.starts):
            chosen = (numbers == block).nonzero().flatten()
            if len(chosen):
                parts.append(F.linear(self.project(states, block), self.tables[block][items[chosen] - start]))
                columns.append(chosen)
        order = torch.cat(columns).argsort()
        return torch.cat(parts, dim=1).index_select(1, order)

    def block_products(self, states: Tensor, start: int, stop: int) -> Tensor:
        """`products` of the consecutive items ``start .. stop - 1``."""
        if (table := self.dense()) is not None:
            return F.linear(states, table[start:stop])
        parts: list[Tensor] = [
            F.linear(self.project(states, block), self.tables[block][max(start - first, 0) : stop - first])
            for block, (first, end) in enumerate(zip(self.blocks.starts, self.blocks.ends, strict=True))
            if start <= end and stop > first
        ]
        return torch.cat(parts, dim=1)

    def dense(self) -> Tensor | None:
        """(N + 1, D) all vectors, row 0 zeros, in inference where they are few; else None."""
        size = 4 * (self.num_items + 1) * self.dim
        if self.training or torch.is_grad_enabled() or size > DENSE_BYTES or self.tables[0].is_inference():
            return None  # tensors made for inference alone do not count their changes
        return self.kept.get(self._everything, self.parameters())

    def _everything(self) -> Tensor:
        items = torch.arange(1, self.num_items + 1, device=self.tables[0].device)
        return torch.cat([self.tables[0].new_zeros(1, self.dim), *self._vectors(items)])

    def _padding(self, distinct: Tensor) -> Tensor:
        """(1, D) zeros where PAD is among the distinct items, of which it is the first; else (0, D)."""
        zeros: Tensor = self.tables[0].new_zeros(int((distinct[:1] == PAD).sum()), self.dim)
        return zeros

    def _vectors(self, distinct: Tensor) -> list[Tensor]:
        """(n, D) vectors of the ascending items `distinct`, block after block."""
        starts = torch.tensor((*self.blocks.starts, self.num_items + 1), device=distinct.device)
        borders = torch.searchsorted(distinct, starts).tolist()
        found = []
        for block, (begin, end) in enumerate(pairwise(borders)):
            if begin < end:  # parameters of other blocks get no gradient
                rows = F.embedding(distinct[begin:end] - self.blocks.starts[block], self.tables[block])
                name = str(block)
                found.append(rows @ self.projections[name] if name in self.projections else rows)
        return found


def _take_sizes(module: BlockEmbedding, tensors: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Blocks by frequency are those of the catalog that a saved model learnt from: its tables say how large."""
    saved = [tensors.get(f"{prefix}tables.{block}") for block in range(len(module.blocks))]
    sizes = [len(table) for table in saved if table is not None]
    if len(sizes) == len(module.blocks) and sum(sizes) == module.num_items:
        module.blocks = Blocks(tuple(accumulate(sizes)), module.blocks.ranks)
        for block, size in enumerate(sizes):
            module.tables[block] = nn.Parameter(module.tables[block].new_empty(size, module.blocks.ranks[block]))
