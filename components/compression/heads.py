"""Output heads of compressed students: a two-level tree softmax, and products with item vectors in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.compression.blocks import Blocks
from components.compression.embedding import BlockEmbedding
from components.layers.recompute import recomputed
from components.losses import chunked_cross_entropy
from components.model import OutputHead

LOGITS_AT_ONCE = 1 << 22


class FlatHead(OutputHead):
    """Score = <state, item vector>, the vectors in blocks; one softmax over the items of all blocks.

    CpRec's authors found it worse than the tree. It is what a student has whose output is tied to its input.

    Args:
        items: the vectors; the student's own item embedding, or those of the head alone.
        tied: whether `items` belongs to the student already.
    """

    def __init__(self, items: BlockEmbedding, tied: bool) -> None:
        super().__init__()
        self._tied = [items] if tied else []  # in a list: the module is the student's, not a second child
        self.own = None if tied else items

    @property
    def item_embedding(self) -> BlockEmbedding:
        """The vectors that states are compared with."""
        return self._tied[0] if self.own is None else self.own

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy over all items, few rows at a time."""
        items = self.item_embedding
        total = states.sum() * 0.0
        size = max(1, LOGITS_AT_ONCE // items.num_items)
        for begin in range(0, len(targets), size):
            wanted = targets[begin : begin + size] - 1

            def summed(part: Tensor, wanted: Tensor = wanted) -> Tensor:
                return F.cross_entropy(items.block_products(part, 1, items.num_items + 1), wanted, reduction="sum")

            total = total + recomputed(summed, items.parameters(), states[begin : begin + size])
        return total / max(len(targets), 1)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, D), (C,) -> (P, C)."""
        return self.item_embedding.products(states, candidates)

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, D) -> (P, stop - start)."""
        return self.item_embedding.block_products(states, start, stop)

    def inner_product_vectors(self) -> Tensor | None:
        """(N, D)."""
        return self.item_embedding.rows(1, self.item_embedding.num_items + 1)


class TreeHead(OutputHead):
    """Two-level softmax (CpRec, section 3.2.2): the root ranks the items of the first block and the other blocks.

    ``log p(x) = log root(x)`` in the first block and ``log root(block j) + log leaf_j(x)`` in block j. A score is the
    log probability, so that rankings and distillation see one distribution over all items.

    Args:
        blocks: at least two; the first has the width of the model.
        dim: D.
    """

    def __init__(self, blocks: Blocks, dim: int) -> None:
        super().__init__()
        if len(blocks) < 2:
            raise ValueError(f"a tree needs at least 2 blocks, got {len(blocks)}")
        self.blocks, self.num_items = blocks, blocks.num_items
        self.root = nn.Parameter(torch.empty(blocks.sizes[0] + len(blocks) - 1, dim))
        self.projections = nn.ParameterList(torch.empty(rank, dim) for rank in blocks.ranks[1:])
        self.leaves = nn.ParameterList(
            torch.empty(size, rank) for size, rank in zip(blocks.sizes[1:], blocks.ranks[1:], strict=True)
        )
        for matrix in self.parameters():
            nn.init.xavier_uniform_(matrix)
        self.register_load_state_dict_pre_hook(_take_sizes)  # type: ignore[no-untyped-call]

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Mean of ``-log p(target)``; a leaf is computed for the rows whose target it holds, and for no other."""
        numbers = self.blocks.of(targets)
        own = numbers == 0
        total = chunked_cross_entropy(states, self.root, torch.where(own, targets - 1, self._place_of(numbers)))
        for leaf, start in self._leaves():
            rows = (numbers == leaf + 1).nonzero().flatten()
            if len(rows):  # its parameters get no gradient otherwise
                inner = F.linear(states[rows], self.projections[leaf])
                share = len(rows) / len(targets)
                total = total + share * chunked_cross_entropy(inner, self.leaves[leaf], targets[rows] - start)
        return total

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, D), (C,) -> (P, C) log probabilities."""
        numbers = self.blocks.of(candidates)
        states, normalizers = self._split(states)
        root = F.linear(states, self.root)
        columns = torch.where(numbers == 0, candidates - 1, self._place_of(numbers))
        found = root[:, columns] - (root.logsumexp(1, keepdim=True) if normalizers is None else normalizers[:, :1])
        for leaf, start in self._leaves():
            chosen = (numbers == leaf + 1).nonzero().flatten()
            if len(chosen):
                inner = self._inside(states, normalizers, leaf, candidates[chosen] - start)
                found = found.index_add(1, chosen, inner)
        return found

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, D), or what `ready` made of it -> (P, stop - start) log probabilities."""
        return self.scores(states, torch.arange(start, stop, device=states.device))

    def ready(self, states: Tensor) -> Tensor:
        """(P, D) -> (P, D + n): the logarithms of the n normalizers behind each state; `block` then makes none."""
        sums = [F.linear(states, self.root).logsumexp(1)]
        for leaf, _ in self._leaves():
            inner = F.linear(states, self.projections[leaf])
            sums.append(F.linear(inner, self.leaves[leaf]).logsumexp(1))
        return torch.cat([states, torch.stack(sums, dim=1)], dim=1)

    def _inside(self, states: Tensor, normalizers: Tensor | None, leaf: int, rows: Tensor) -> Tensor:
        """(P, D), (C,) rows of a leaf -> (P, C) log probabilities within it."""
        inner, table = F.linear(states, self.projections[leaf]), self.leaves[leaf]
        if normalizers is not None:
            return F.linear(inner, table[rows]) - normalizers[:, leaf + 1, None]
        logits = F.linear(inner, table)
        return logits[:, rows] - logits.logsumexp(1, keepdim=True)

    def _split(self, states: Tensor) -> tuple[Tensor, Tensor | None]:
        dim = self.root.shape[1]
        return states[:, :dim], states[:, dim:] if states.shape[1] > dim else None

    def _place_of(self, numbers: Tensor) -> Tensor:
        """(C,) rows of the root that stand for the blocks `numbers`; of no meaning for the first."""
        return self.blocks.sizes[0] + numbers - 1

    def _leaves(self) -> Iterator[tuple[int, int]]:
        """Number from 0 and first item of each leaf."""
        return enumerate(self.blocks.starts[1:])


def _take_sizes(head: TreeHead, tensors: dict[str, Tensor], prefix: str, *_: object) -> None:
    """As that of `BlockEmbedding`."""
    saved = [tensors.get(f"{prefix}leaves.{leaf}") for leaf in range(len(head.leaves))]
    sizes = [len(table) for table in saved if table is not None]
    first = head.num_items - sum(sizes)
    if len(sizes) == len(head.leaves) and first > 0:
        head.blocks = Blocks(tuple(accumulate([first, *sizes])), head.blocks.ranks)
        head.root = nn.Parameter(head.root.new_empty(first + len(sizes), head.root.shape[1]))
        for leaf, size in enumerate(sizes):
            head.leaves[leaf] = nn.Parameter(head.leaves[leaf].new_empty(size, head.blocks.ranks[leaf + 1]))
