"""Caser: convolutions over the last few items, and a vector of the user (Tang & Wang 2018)."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.batching import Batch
from components.layers.dropout import Dropout
from components.model import Catalog, ItemTensor, OutputHead, Ranker
from components.schema import PAD
from components.students.sequential import (
    SequentialConfig,
    at_positions,
    make_item_embedding,
    make_output_head,
    plain_table,
)


class CaserConfig(SequentialConfig):
    """Arguments of Caser."""

    dropout: float = Field(0.5, ge=0, lt=1, description="rate on the fully connected layer")
    window: int = Field(5, ge=1, description="items that a state sees")
    num_horizontal: int = Field(16, ge=1, description="horizontal filters of each height 1..window")
    num_vertical: int = Field(4, ge=1, description="vertical filters")
    use_users: bool = Field(True, description="learn a vector per user; an unknown user has zeros")

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if self.window > self.max_length:
            raise ValueError(
                f"window must be at most max_length, got window={self.window}, max_length={self.max_length}"
            )
        return self


class WindowConvolutions(nn.Module):
    """Item vectors -> one vector per window of W items (Tang & Wang 2018, Eq. 2 to 7).

    ``relu(W [max-pooled horizontal; vertical] + b)``. A horizontal filter is slid over the row once: windows that
    overlap share its values, and each takes the maximum of its own.

    Args:
        dim: D.
        window: W.
        num_horizontal: filters (h, D) of each height h = 1..W.
        num_vertical: filters (W, 1).
        dropout: rate on the result.
    """

    def __init__(self, dim: int, window: int, num_horizontal: int, num_vertical: int, dropout: float) -> None:
        super().__init__()
        self.window, self.num_horizontal = window, num_horizontal
        # A filter of height h reads h consecutive item vectors, laid side by side, the oldest first.
        self.horizontal = nn.ModuleList(nn.Linear(height * dim, num_horizontal) for height in range(1, window + 1))
        self.vertical = nn.Linear(window, num_vertical)
        self.connect = nn.Linear(num_horizontal * window + num_vertical * dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W - 1 + S, D) -> (B, S, D), one vector for the window that ends at each of the last S items."""
        columns = self.vertical(x.unfold(1, self.window, 1)).flatten(2)  # (B, S, D * vertical)
        features = torch.cat([self._horizontal(x), columns], dim=-1)
        out: Tensor = self.dropout(F.relu(self.connect(features), inplace=True))
        return out

    def _horizontal(self, x: Tensor) -> Tensor:
        """(B, W - 1 + S, D) -> (B, S, W * horizontal), in one product: a low filter ignores the items after it."""
        count = x.shape[1]
        padded = F.pad(x, (0, 0, 0, self.window - 1))  # for the high filters at the end, whose values nobody takes
        taps = torch.cat([padded[:, begin : begin + count] for begin in range(self.window)], dim=-1)
        weights = [F.pad(layer.weight, (0, taps.shape[-1] - layer.in_features)) for layer in self._layers()]
        bias = torch.cat([layer.bias for layer in self._layers()])
        values = F.linear(taps, torch.cat(weights), bias).transpose(1, 2)  # (B, W * horizontal, W - 1 + S)
        pooled = [
            F.max_pool1d(part[..., : count + 1 - height], self.window + 1 - height, stride=1)  # (B, horizontal, S)
            for height, part in enumerate(values.chunk(self.window, dim=1), start=1)
        ]
        return F.relu(torch.cat(pooled, dim=1)).transpose(1, 2)  # the maximum of relu is the relu of the maximum

    def _layers(self) -> list[nn.Linear]:
        return [layer for layer in self.horizontal if isinstance(layer, nn.Linear)]


class Caser(Ranker):
    """Window -> convolutions; with the user's vector beside them, projected to the width of an item vector -> head.

    The paper compares the pair (2 D) with vectors of its own. Here it is projected to D and compared with the item
    embedding, which keeps one table instead of three times its size: ``<e_j, A [z; p_u] + b>``.

    Args:
        item_embedding: any `components.layers.embedding.ItemEmbedding` that is a module.
        user_embedding: vectors of users 0..U, of which 0, the unknown one, has zeros; None leaves users out.
        network: its `window` is W; (B, W - 1 + S, D) item vectors -> (B, S, D).
        project: (P, D), or (P, 2 D) with users -> (P, D).
        head: turns states into scores.
        num_items: N.
        max_length: L.
    """

    def __init__(
        self,
        item_embedding: nn.Module,
        user_embedding: nn.Embedding | None,
        network: WindowConvolutions,
        project: nn.Module,
        head: OutputHead,
        num_items: int,
        max_length: int,
    ) -> None:
        super().__init__()
        self.item_embedding, self.user_embedding = item_embedding, user_embedding
        self.network, self.project, self.head = network, project, head
        self.num_items, self.max_length = num_items, max_length

    def states(self, batch: Batch) -> Tensor:
        """(P, D) states at the predicted positions; in evaluation only the last window of a row is read."""
        window, length = self.network.window, batch.items.shape[1]
        items = F.pad(batch.items, (window - 1, 0), value=PAD)  # the first windows begin before their row
        if batch.last_only and not self.training and len(batch.positions) == len(batch):
            columns = (batch.positions % length)[:, None] + torch.arange(window, device=items.device)
            pooled = self.network(self.item_embedding(items.gather(1, columns)))[:, 0]
        else:
            pooled = at_positions(self.network(self.item_embedding(items)), batch.positions)
        if self.user_embedding is not None:
            pooled = torch.cat([pooled, self.user_embedding(batch.users)[batch.rows]], dim=1)
        states: Tensor = self.project(pooled)
        return states

    def item_tensors(self) -> list[ItemTensor]:
        """The item embedding, with which states are compared too."""
        return plain_table("item_embedding", self.item_embedding, self.head)

    @staticmethod
    def part_of(name: str) -> str:
        """Vectors of users count as embedding."""
        return "embedding" if name.startswith("user_embedding") else Ranker.part_of(name)


def build(catalog: Catalog, config: CaserConfig) -> Caser:
    """Build a Caser, with tied item vectors unless it is compressed; vectors start as N(0, 1 / D), as the authors'."""
    dim = config.dim
    item_embedding = make_item_embedding(catalog, config, init_std=1 / dim)
    user_embedding = make_user_embedding(catalog, dim) if config.use_users else None
    network = WindowConvolutions(dim, config.window, config.num_horizontal, config.num_vertical, config.dropout)
    project = nn.Linear(2 * dim if config.use_users else dim, dim)
    head = make_output_head(catalog, config, item_embedding)
    return Caser(item_embedding, user_embedding, network, project, head, catalog.num_items, config.max_length)


def make_user_embedding(catalog: Catalog, dim: int) -> nn.Embedding:
    """Vectors of users 0..U, standard deviation 1 / D; user 0 and users of whom nothing trains keep zeros."""
    embedding = nn.Embedding(catalog.num_users + 1, dim, padding_idx=0)
    with torch.no_grad():
        embedding.weight[1:].normal_(std=1 / dim)
        if catalog.sequences is not None:
            untrained = catalog.sequences.users[catalog.sequences.train_end < 2]  # one item is no target
            embedding.weight[torch.from_numpy(untrained).long()] = 0.0
    return embedding
