"""Output heads that compare a state with item vectors, and the losses that they may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from components.layers.drawn_scores import drawn_scores
from components.layers.embedding import ItemEmbedding
from components.losses import (
    bce_loss,
    bpr_loss,
    chunked_cross_entropy,
    gbce_beta,
    gbce_loss,
    sampled_softmax_loss,
)
from components.model import Catalog, OutputHead, Ranker
from components.students.mostpop import smoothed_shares

ABSOLUTE_LOSSES = ("bce", "gbce")  # a constant added to all scores of a row changes these, and no other


class SamplingConfig(BaseModel):
    """Arguments of the losses that draw negatives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_negatives: int = Field(256, ge=1, description="negatives of a sampled loss")
    negatives: Literal["uniform", "popularity"] = Field("uniform", description="how they are drawn")
    shared_negatives: bool = Field(True, description="one draw for a whole batch, a matrix product; else per position")
    gbce_calibration: float = Field(0.75, ge=0, le=1, description="t of gBCE; 0 is bce")


class HeadConfig(SamplingConfig):
    """Arguments of `make_head`."""

    loss: Literal["softmax", "sampled-softmax", "gbce", "bce", "bpr"] = Field(
        "softmax", description="softmax: over all items; the others draw negatives"
    )


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

    def inner_product_vectors(self) -> Tensor | None:
        """(N, D)."""
        return self.item_embedding.rows(1, self.item_embedding.num_items + 1)


def learnt_items(model: Ranker) -> ItemEmbedding:
    """The item vectors that the model's network reads, or, where it reads none, those that states are compared with.

    Raises:
        TypeError: it has neither.
    """
    found = getattr(model, "item_embedding", None) or getattr(model.head, "item_embedding", None)
    if found is None:
        raise TypeError(f"expected a model with item vectors, got a {type(model).__name__}")
    items: ItemEmbedding = found
    return items


class BiasedHead(DotProductHead):
    """Score = <state, item vector> + bias of the item, the output layer of BERT4Rec (Sun et al. 2019, Eq. 7).

    Args:
        item_embedding: the student's own item embedding.
    """

    def __init__(self, item_embedding: ItemEmbedding) -> None:
        super().__init__(item_embedding)
        self.bias = nn.Parameter(torch.zeros(item_embedding.num_items + 1))  # entry 0 belongs to PAD and stays zero

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """Full-catalog softmax cross-entropy; the bias is one more column, which meets a constant 1 in the state."""
        vectors = self.item_embedding.rows(1, self.item_embedding.num_items + 1)
        table = torch.cat([vectors, self.bias[1:, None]], dim=1)  # (N, D + 1)
        return chunked_cross_entropy(torch.cat([states, torch.ones_like(states[:, :1])], dim=1), table, targets - 1)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, D), (C,) -> (P, C)."""
        return super().scores(states, candidates) + self.bias[candidates]

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, D) -> (P, stop - start)."""
        return super().block(states, start, stop) + self.bias[start:stop]

    def inner_product_vectors(self) -> Tensor | None:
        """None: the bias is no part of a product with the state."""
        return None


Comparison = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (P,), (P, m), (P,), (m,) or (P, m) -> scalar


class NegativeSampler(nn.Module):
    """Draws items that a target is compared with.

    Args:
        counts: (N + 1,) training interactions per item, entry 0 is PAD.
        num_negatives: m per target.
        by_popularity: in proportion to training frequency (plus 1), instead of uniformly.
        shared: all targets of a batch share one draw, which makes their scores one matrix product.
    """

    def __init__(self, counts: NDArray[np.int64], num_negatives: int, by_popularity: bool, shared: bool) -> None:
        super().__init__()
        self.num_negatives, self.by_popularity, self.shared = num_negatives, by_popularity, shared
        shares = smoothed_shares(counts) if by_popularity else np.full(len(counts) - 1, 1.0 / (len(counts) - 1))
        log_shares, borders = np.log(shares).astype(np.float32), np.cumsum(shares)[:-1].astype(np.float32)
        self.register_buffer("log_shares", torch.from_numpy(log_shares), persistent=False)  # (N,)
        self.register_buffer("borders", torch.from_numpy(borders), persistent=False)  # (N - 1,)
        self.log_shares: Tensor
        self.borders: Tensor

    def forward(self, positions: int) -> Tensor:
        """(m,) item numbers, or (positions, m) where every position has its own; repeats are possible."""
        shape = (self.num_negatives,) if self.shared else (positions, self.num_negatives)
        if not self.by_popularity:
            return torch.randint(1, len(self.log_shares) + 1, shape, device=self.log_shares.device)
        return torch.searchsorted(self.borders, torch.rand(shape, device=self.borders.device), right=True) + 1

    def draw(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(P,) targets -> items as `forward`, (P,) and their shape: log probability of drawing targets and items."""
        drawn: Tensor = self(len(targets))
        return drawn, self.log_probability(targets), self.log_probability(drawn)

    def log_probability(self, items: Tensor) -> Tensor:
        """(...) log probability that one draw gives the item."""
        return self.log_shares[items - 1]


class SampledHead(DotProductHead):
    """Scores as `DotProductHead`; training compares a target with some items instead of with all.

    A negative that happens to be the target counts for nothing.

    Args:
        item_embedding: the student's own item embedding.
        sampler: draws the negatives.
        compare: the loss, of scores of targets and negatives (-inf where one does not count) and the log probability
            of drawing each of them.
    """

    def __init__(self, item_embedding: ItemEmbedding, sampler: NegativeSampler, compare: Comparison) -> None:
        super().__init__(item_embedding)
        self.sampler, self.compare = sampler, compare

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """The sampled loss; 0 for an empty batch."""
        if len(targets) == 0:
            return states.sum() * 0.0
        drawn, log_q_targets, log_q_drawn = self.sampler.draw(targets)  # drawn: (m,) or (P, m)
        positive = torch.linalg.vecdot(states, self.item_embedding(targets))  # (P,)
        if drawn.ndim == 1:
            negative = states @ self.item_embedding(drawn).t()  # (P, m)
        else:
            negative = drawn_scores(states, self.item_embedding, drawn)
        negative = negative.masked_fill(drawn == targets[:, None], -torch.inf)
        return self.compare(positive, negative, log_q_targets, log_q_drawn)


def make_head(catalog: Catalog, config: HeadConfig, item_embedding: ItemEmbedding) -> OutputHead:
    """The head with the configured loss, tied to `item_embedding`."""
    if config.loss == "softmax":
        return DotProductHead(item_embedding)
    return SampledHead(item_embedding, make_sampler(catalog, config), make_comparison(catalog, config, config.loss))


def make_sampler(catalog: Catalog, config: SamplingConfig) -> NegativeSampler:
    """The configured sampler."""
    by_popularity = config.negatives == "popularity"
    return NegativeSampler(catalog.counts, config.num_negatives, by_popularity, config.shared_negatives)


def make_comparison(catalog: Catalog, config: SamplingConfig, loss: str) -> Comparison:
    """The sampled loss called `loss`."""
    beta = gbce_beta(catalog.num_items, config.num_negatives, config.gbce_calibration)
    comparisons: dict[str, Comparison] = {
        "sampled-softmax": sampled_softmax_loss,
        "gbce": lambda positive, negative, *_: gbce_loss(positive, negative, beta),
        "bce": lambda positive, negative, *_: bce_loss(positive, negative),
        "bpr": lambda positive, negative, *_: bpr_loss(positive, negative),
    }
    return comparisons[loss]
