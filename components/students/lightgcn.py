"""LightGCN: vectors of users and items, smoothed along the graph of training interactions (He et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.batching import Batch
from components.data.interactions import training_matrix
from components.layers.bipartite import BipartiteGraph
from components.layers.embedding import FullEmbedding, ItemEmbedding
from components.layers.kept import Kept
from components.losses import bpr_loss, repeated_cross_entropy
from components.model import Catalog, ItemTensor, OutputHead, Ranker
from components.schema import PAD
from components.students.heads import DotProductHead, NegativeSampler

INIT_STD = 0.1  # of the vectors of layer 0


class LightGCNConfig(BaseModel):
    """Arguments of LightGCN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="width of the vectors")
    num_layers: int = Field(3, ge=0, description="propagations along the edges; 0 is matrix factorization")
    max_length: int = Field(
        50, ge=1, description="items of a history: targets per window, and what a stranger is read by"
    )
    loss: Literal["softmax", "bpr"] = Field("softmax", description="softmax: over all items; bpr: against one of them")
    l2: float = Field(1e-4, ge=0, description="weight of the squared norms of layer 0 in bpr")


class PropagatedVectors(nn.Module):
    """Users and items after propagation; to a head it is an item embedding (`components.layers.embedding`).

    Args:
        graph: the edges.
        user_embedding: layer 0 of the users; ``rows(0, U + 1)`` with zeros for user 0, who is unknown.
        item_embedding: layer 0 of the items.
        num_layers: K.
    """

    def __init__(
        self, graph: BipartiteGraph, user_embedding: nn.Module, item_embedding: nn.Module, num_layers: int
    ) -> None:
        super().__init__()
        self.graph, self.user_embedding, self.item_embedding = graph, user_embedding, item_embedding
        self.num_layers, self.num_items, self.dim = num_layers, graph.num_items, cast(ItemEmbedding, item_embedding).dim
        self.kept: Kept[tuple[Tensor, Tensor]] = Kept()

    def tables(self, *, renew: bool = False) -> tuple[Tensor, Tensor]:
        """(U + 1, D) users and (N + 1, D) items, row 0 of both zero.

        In training they are propagated when `renew` asks for it, at the beginning of a step, and then kept: what
        compares states with items in one step uses the tables that the states came from. In evaluation they are
        kept until a parameter changes.
        """
        if renew and (self.training or torch.is_grad_enabled()):
            self.kept.forget()
        return self.kept.get(self._propagated, self.parameters(), self.training, torch.is_grad_enabled())

    def forward(self, items: Tensor) -> Tensor:
        """(...) item numbers -> (..., D)."""
        return F.embedding(items, self.tables()[1])

    def rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, D) vectors of consecutive items."""
        return self.tables()[1][start:stop]

    def load_edges(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """Take the graph of a saved model, whose tensors begin with `prefix`."""
        self.graph.load_edges(tensors[f"{prefix}graph.offsets"], tensors[f"{prefix}graph.items"])
        self.kept.forget()

    def _propagated(self) -> tuple[Tensor, Tensor]:
        users = cast(ItemEmbedding, self.user_embedding).rows(0, self.graph.num_users + 1)
        items = cast(ItemEmbedding, self.item_embedding).rows(1, self.num_items + 1)
        start = torch.cat([users, users.new_zeros(1, self.dim), items])  # (U + N + 2, D)
        mean = self.graph.propagate(start, self.num_layers)
        users, items = torch.split(mean, [self.graph.num_users + 1, self.num_items + 1])
        return users, items


class SharedSoftmaxHead(DotProductHead):
    """Scores as `DotProductHead`; the softmax is made once for neighboring positions of the same state.

    All positions of a known user have one state, so that a window costs one row of the catalog's scores instead of one
    per target.
    """

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Full-catalog softmax cross-entropy; PAD does not compete."""
        table = self.item_embedding.rows(1, self.item_embedding.num_items + 1)
        changes = (states[1:] != states[:-1]).any(dim=1)
        starts = torch.cat([changes.new_ones(min(1, len(states))), changes]).nonzero()[:, 0]  # (R,)
        repeats = torch.diff(starts, append=starts.new_tensor([len(states)]))
        return repeated_cross_entropy(states[starts], table, targets - 1, repeats=repeats)


class BPRHead(DotProductHead):
    """Scores as `DotProductHead`; training compares a target with one item drawn from all (students.md, section 7).

    ``softplus(s- - s+) + l2 / 2 (|u|^2 + |i+|^2 + |i-|^2)``, mean over positions, with vectors of layer 0 in the
    norms. A state is the user's propagated vector followed by the one of layer 0: (P, 2 D).

    Args:
        vectors: the propagated items.
        own: the items of layer 0.
        sampler: draws one item per position.
        l2: weight of the squared norms.
    """

    def __init__(self, vectors: ItemEmbedding, own: ItemEmbedding, sampler: NegativeSampler, l2: float) -> None:
        super().__init__(vectors)
        self._own = [own]  # in a list: the module is the student's, not a second child
        self.sampler, self.l2 = sampler, l2

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """The mean over positions; 0 for an empty batch."""
        if len(targets) == 0:
            return states.sum() * 0.0
        users, own_users = torch.split(states, self.item_embedding.dim, dim=1)  # (P, D) each
        drawn = self.sampler(len(targets))[:, 0]
        positive, negative = (torch.linalg.vecdot(users, self.item_embedding(items)) for items in (targets, drawn))
        negative = negative.masked_fill(drawn == targets, -torch.inf)  # a draw of the target itself counts for nothing
        own = torch.cat([own_users, self._own[0](targets), self._own[0](drawn)])
        return bpr_loss(positive, negative[:, None]) + 0.5 * self.l2 * own.square().sum() / len(targets)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, 2 D), (C,) -> (P, C)."""
        return super().scores(states[:, : self.item_embedding.dim], candidates)

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, 2 D) -> (P, stop - start)."""
        return super().block(states[:, : self.item_embedding.dim], start, stop)

    def inner_product_vectors(self) -> Tensor | None:
        """None: only the first half of a state meets them."""
        return None


class LightGCN(Ranker):
    """Ranks by <user, item> after propagation. A user's history counts through the graph alone.

    A user without training edges, or unknown (0), is folded in by the items of the history:
    ``u = sum_i e_i / sqrt(n d_i)`` over the n distinct items, with ``d_i`` users of an item: what one more propagation
    would bring to a new node with these edges.

    Args:
        vectors: users and items.
        head: turns states into scores.
        max_length: items of a history that a stranger is read by.
        own: append the user's vector of layer 0 to a state, for `BPRHead`.
    """

    def __init__(self, vectors: PropagatedVectors, head: OutputHead, max_length: int, *, own: bool = False) -> None:
        super().__init__()
        self.vectors, self.head, self.own = vectors, head, own
        self.num_items, self.max_length = vectors.num_items, max_length

    def states(self, batch: Batch) -> Tensor:
        """(P, D) the user's vector at every position; (P, 2 D) with the one of layer 0. Begins a training step."""
        users, items = self.vectors.tables(renew=True)
        known = self.vectors.graph.user_degrees(batch.users) > 0
        numbers = torch.where(known, batch.users, 0)[batch.rows]  # (P,)
        states = F.embedding(numbers, users)
        strange = torch.nonzero(numbers == 0)[:, 0]
        if len(strange):
            states = states.index_copy(0, strange, self._folded_in(batch, items)[batch.positions[strange]])
        return torch.cat([states, self.vectors.user_embedding(numbers)], dim=1) if self.own else states

    def _folded_in(self, batch: Batch, items: Tensor) -> Tensor:
        """(B * L, D) vectors of strangers who have the items up to each place of the grid."""
        grid = batch.items
        ordered, order = grid.sort(dim=1, stable=True)
        again = torch.zeros_like(grid, dtype=torch.bool)
        again.scatter_(1, order[:, 1:], ordered[:, 1:] == ordered[:, :-1])
        counted = ((grid != PAD) & ~again).to(items.dtype)  # (B, L) 1 at the first occurrence of an item
        degrees = self.vectors.graph.item_degrees(grid).clamp(min=1)
        weighted = F.embedding(grid, items) * (counted / degrees.sqrt())[..., None]  # (B, L, D)
        sizes = counted.cumsum(1).clamp(min=1).sqrt()
        return (weighted.cumsum(1) / sizes[..., None]).flatten(0, 1)

    def item_tensors(self) -> list[ItemTensor]:
        """Layer 0 of the items. Without edges nothing but layer 0 reaches the mean over the K + 1 layers."""
        if not isinstance(self.vectors.item_embedding, FullEmbedding):
            return []
        fitted = self.vectors.tables()[1]
        return [ItemTensor("vectors.item_embedding.weight", fitted, scale=self.vectors.num_layers + 1)]

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the saved vectors and edges, however many there are."""
        self.vectors.load_edges(tensors, "vectors.")
        super().load_tensors(tensors)

    @staticmethod
    def part_of(name: str) -> str:
        """Users and items are all that it has: both are embeddings."""
        return "embedding"


def build(catalog: Catalog, config: LightGCNConfig) -> LightGCN:
    """The graph of the catalog's training interactions, without edges where it has no sequences; layer 0 is random."""
    graph = BipartiteGraph(training_matrix(catalog.sequences, catalog.num_users, catalog.num_items))
    users = FullEmbedding(catalog.num_users, config.dim, INIT_STD)
    items = FullEmbedding(catalog.num_items, config.dim, INIT_STD)
    vectors = PropagatedVectors(graph, users, items, config.num_layers)
    if config.loss == "softmax":
        return LightGCN(vectors, SharedSoftmaxHead(vectors), config.max_length)
    sampler = NegativeSampler(catalog.counts, 1, by_popularity=False, shared=False)
    return LightGCN(vectors, BPRHead(vectors, items, sampler, config.l2), config.max_length, own=True)
