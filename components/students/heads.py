"""Output heads that compare a state with item vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.layers.embedding import ItemEmbedding
from components.losses import (
    bce_loss,
    bpr_loss,
    chunked_cross_entropy,
    gbce_beta,
    gbce_loss,
    sampled_softmax_loss,
)
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


SampledLoss = Literal["sampled-softmax", "gbce", "bce", "bpr"]


@dataclass(frozen=True)
class Sampling:
    """How a loss with negatives draws them.

    Attributes:
        loss: its name.
        num_negatives: m per target.
        distribution: uniform, or in proportion to training frequency.
        shared: all targets of a batch share one draw.
        gbce_calibration: t of gBCE.
    """

    loss: SampledLoss
    num_negatives: int = 256
    distribution: Literal["uniform", "popularity"] = "uniform"
    shared: bool = True
    gbce_calibration: float = 0.75


class SampledHead(DotProductHead):
    """Scores as `DotProductHead`; training compares a target with some items instead of with all.

    A negative that happens to be the target counts for nothing.

    Args:
        item_embedding: the student's own item embedding.
        sampling: which loss, and how negatives are drawn.
        counts: (N + 1,) training interactions per item, entry 0 is PAD.
    """

    def __init__(self, item_embedding: ItemEmbedding, sampling: Sampling, counts: NDArray[np.int64]) -> None:
        super().__init__(item_embedding)
        self.sampling = sampling
        frequency = counts[1:] + 1.0 if sampling.distribution == "popularity" else np.ones(len(counts) - 1)
        shares = torch.from_numpy(frequency / frequency.sum())
        self.register_buffer("log_shares", shares.log().float(), persistent=False)  # (N,)
        self.register_buffer("borders", shares.cumsum(0)[:-1].float(), persistent=False)  # (N - 1,) of a uniform draw
        self.log_shares: Tensor
        self.borders: Tensor

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """The sampled loss; 0 for an empty batch."""
        if len(targets) == 0:
            return states.sum() * 0.0
        drawn = self.draw(len(targets))  # (m,) or (P, m)
        positive = torch.linalg.vecdot(states, self.item_embedding(targets))  # (P,)
        vectors = self.item_embedding(drawn)
        negative = states @ vectors.t() if drawn.ndim == 1 else (vectors @ states[:, :, None])[..., 0]  # (P, m)
        negative = negative.masked_fill(drawn == targets[:, None], -torch.inf)
        return self._compare(positive, negative, targets, drawn)

    def draw(self, positions: int) -> Tensor:
        """(m,) item numbers, or (positions, m) where every position has its own."""
        drawn = self.sampling.num_negatives
        shape = (drawn,) if self.sampling.shared else (positions, drawn)
        if self.sampling.distribution == "uniform":
            return torch.randint(1, len(self.log_shares) + 1, shape, device=self.log_shares.device)
        return torch.searchsorted(self.borders, torch.rand(shape, device=self.borders.device), right=True) + 1

    def _compare(self, positive: Tensor, negative: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        match self.sampling.loss:
            case "bce":
                return bce_loss(positive, negative)
            case "bpr":
                return bpr_loss(positive, negative)
            case "gbce":
                beta = gbce_beta(len(self.log_shares), negative.shape[1], self.sampling.gbce_calibration)
                return gbce_loss(positive, negative, beta)
            case "sampled-softmax":
                return sampled_softmax_loss(
                    positive, negative, self.log_shares[targets - 1], self.log_shares[drawn - 1]
                )
