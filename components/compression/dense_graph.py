"""What a compressed student computes, as one graph without branches on data: the form in which it can be exported.

Every item of a history is looked up in every block, and every item of the catalog is scored. That is more arithmetic
than `components.compression.embedding` and `heads` do, and none of it asks how many items fall in a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.compression.embedding import BlockEmbedding
from components.compression.heads import TreeHead


def block_vectors(embedding: BlockEmbedding, items: Tensor) -> Tensor:
    """(...) items 1..N -> (..., D), equal to ``embedding(items)``."""
    found = torch.zeros((*items.shape, embedding.dim), dtype=embedding.tables[0].dtype, device=items.device)
    for block, (start, end) in enumerate(zip(embedding.blocks.starts, embedding.blocks.ends, strict=True)):
        inside = (items >= start) & (items <= end)
        rows = F.embedding((items - start).clamp(0, end - start), embedding.tables[block])
        name = str(block)
        vectors = rows @ embedding.projections[name] if name in embedding.projections else rows
        found = torch.where(inside[..., None], vectors, found)
    return found


def block_scores(items: BlockEmbedding, states: Tensor) -> Tensor:
    """(P, D) -> (P, N) products with all items, block after block."""
    parts = [F.linear(items.project(states, block), table) for block, table in enumerate(items.tables)]
    return torch.cat(parts, dim=1)


def tree_scores(head: TreeHead, states: Tensor) -> Tensor:
    """(P, D) -> (P, N) log probabilities of all items (CpRec, section 3.2.2)."""
    root = torch.log_softmax(F.linear(states, head.root), dim=1)
    first = head.blocks.sizes[0]
    parts = [root[:, :first]]
    for leaf, table in enumerate(head.leaves):
        inner = torch.log_softmax(F.linear(F.linear(states, head.projections[leaf]), table), dim=1)
        parts.append(root[:, first + leaf, None] + inner)
    return torch.cat(parts, dim=1)
