"""Output heads that compare a state with item vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.layers.embedding import ItemEmbedding
from components.losses import chunked_cross_entropy
from components.model import OutputHead


class DotProductHead(OutputHead):
    """Score = <state, item vector>, tied to the item embedding, without bias (students.md, section 1).

    Args:
        item_embedding: the student's own item embedding.
    """

    def __init__(self, item_embedding: ItemEmbedding) -> None:
        super().__init__()
        self._tied = [item_embedding]  # in a list: the module is the student's, not a second child

    @property
    def item_embedding(self) -> ItemEmbedding:
        """The tied item embedding."""
        return self._tied[0]

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Full-catalogue softmax cross-entropy; PAD does not compete."""
        table = self.item_embedding.rows(1, self.item_embedding.num_items + 1)
        return chunked_cross_entropy(states, table, targets - 1)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, D), (C,) -> (P, C)."""
        return torch.mm(states, self.item_embedding(candidates).t())

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, D) -> (P, stop - start)."""
        return torch.mm(states, self.item_embedding.rows(start, stop).t())

    def _apply(self, fn: object, recurse: bool = True) -> nn.Module:
        """The tied module moves with its owner."""
        return self
