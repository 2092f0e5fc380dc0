"""DeepFM (Guo et al. 2017): a factorization machine plus a network over the same field vectors.

``score(u, i) = FM(u, i) + MLP([v_f]_f)``. The network's first layer is linear in the fields, so each side computes its
share once, ``W [v_u; v_i] + b = (A v_u + b) + B v_i``, and a pair of a user and an item costs only the layers above it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.layers.dropout import Dropout
from components.layers.embedding import ItemEmbedding
from components.layers.recompute import recomputed
from components.model import Catalog, OutputHead
from components.students.fields import FieldConfig
from components.students.fm import FactorizationMachine, ItemRows, UserRows, make_fields
from components.students.heads import ABSOLUTE_LOSSES, Comparison, SamplingConfig, make_comparison, make_sampler
from components.students.mostpop import smoothed_shares

# Pairs that the network sees at once: on a CPU their activations stay in a core's cache; a GPU wants large products.
PAIRS = {"cpu": 1 << 12, "cuda": 1 << 18}
KEPT = 4  # up to so many chunks keep their activations for the gradient, which spares a second pass; more compute again


class DeepFMConfig(SamplingConfig, FieldConfig):
    """Arguments of DeepFM."""

    hidden: list[int] = Field([128, 128], min_length=1, description="widths of the network's hidden layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="on the hidden layers")
    loss: Literal["in-batch", "softmax", "sampled-softmax", "gbce", "bce", "bpr"] = Field(
        "in-batch",
        description="in-batch: softmax over targets of the batch; softmax: over all items, dear; the others draw",
    )
    num_negatives: int = Field(128, ge=1, description="negatives of a sampled loss; most candidates of in-batch")
    popularity_correction: bool = Field(
        True, description="of in-batch: the popular, often among the candidates, are not punished for it (logQ)"
    )


class Candidates(Protocol):
    """Draws items that targets are compared with."""

    def draw(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(P,) targets -> (m,) or (P, m) items, (P,) and (m,) or (P, m) log probability of drawing targets and them."""
        ...


class InBatchSampler(nn.Module):
    """The distinct targets of a batch, or an even sample of them; every position has the same.

    Args:
        counts: (N + 1,) training interactions per item, entry 0 is PAD.
        limit: at most so many candidates.
        corrected: give the log probability that an item is among the candidates of P targets,
            ``log((1 - (1 - q)^P) m / distinct)`` with its share q of the training interactions; else zeros.
    """

    def __init__(self, counts: NDArray[np.int64], limit: int, corrected: bool) -> None:
        super().__init__()
        self.limit, self.corrected = limit, corrected
        log_absent = np.log1p(-np.minimum(smoothed_shares(counts), 1 - 1e-6)).astype(np.float32)
        self.register_buffer("log_absent", torch.from_numpy(log_absent), persistent=False)  # (N,) log(1 - q)
        self.log_absent: Tensor

    def draw(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(P,) -> (m,) items, (P,) and (m,) log probabilities."""
        distinct = torch.unique(targets)
        chosen = distinct
        if len(distinct) > self.limit:
            chosen = distinct[torch.randperm(len(distinct), device=targets.device)[: self.limit]]
        if not self.corrected:
            return chosen, torch.zeros(len(targets), device=targets.device), torch.zeros_like(chosen, dtype=torch.float)
        share = np.log(len(chosen) / len(distinct))
        present = torch.log(-torch.expm1(len(targets) * self.log_absent)) + share  # (N,)
        return chosen, present[targets - 1], present[chosen - 1]


class Tower(nn.Module):
    """The layers of the network above the first: (..., H_1) sums of both sides' shares -> (...) scores.

    Args:
        widths: H_1, H_2, ...
        dropout: rate on every hidden layer.
    """

    def __init__(self, widths: list[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReLU(), Dropout(dropout)]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """(P, H) and (1 or P, C, H) -> (P, C)."""
        scores: Tensor = self.layers(users[:, None] + items)[..., 0]
        return scores


class PairHead(OutputHead):
    """Score = that of the factorization machine plus the network's, for every pair of a state and an item.

    Pairs go through the network in chunks; where many are to have a gradient, their activations are computed again in
    the backward pass, so that memory grows with the scores alone.

    Args:
        item_rows: makes (C, D + 2 + H) rows of items; the student's own.
        tower: the network above its first layer.
        candidates: draws what a target is compared with; None compares it with all items.
        compare: the loss of scores of targets and candidates.
        pairs: pairs per chunk; by device when None.
    """

    def __init__(
        self,
        item_rows: ItemEmbedding,
        tower: Tower,
        candidates: Candidates | None,
        compare: Comparison | None,
        hidden: int,
        pairs: int | None = None,
    ) -> None:
        super().__init__()
        self._tied = [item_rows]  # in a list: the module is the student's, not a second child
        self.tower, self.candidates, self.compare, self.hidden, self.pairs = tower, candidates, compare, hidden, pairs

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        """The configured loss; 0 for an empty batch."""
        rows = self._tied[0]
        if len(targets) == 0:
            return states.sum() * 0.0
        if self.candidates is None or self.compare is None:
            return F.cross_entropy(self._pairs(states, rows.rows(1, rows.num_items + 1)), targets - 1)
        drawn, log_q_targets, log_q_drawn = self.candidates.draw(targets)
        if drawn.ndim == 1:
            positive = self._pairs(states, rows(targets[:, None]))[:, 0]  # (P,)
            negative = self._pairs(states, rows(drawn))  # (P, m)
        else:
            scores = self._pairs(states, rows(torch.cat([targets[:, None], drawn], dim=1)))  # (P, 1 + m)
            positive, negative = scores[:, 0], scores[:, 1:]
        negative = negative.masked_fill(drawn == targets[:, None], -torch.inf)
        return self.compare(positive, negative, log_q_targets, log_q_drawn)

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(P, D + 2 + H), (C,) -> (P, C)."""
        return self._pairs(states, self._tied[0](candidates))

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        """(P, D + 2 + H) -> (P, stop - start)."""
        return self._pairs(states, self._tied[0].rows(start, stop))

    def _pairs(self, states: Tensor, rows: Tensor) -> Tensor:
        """(P, S) states and (C, S) rows, or (P, C, S) with rows of their own -> (P, C)."""
        sizes = [states.shape[1] - self.hidden, self.hidden]
        linear, deep = torch.split(states, sizes, dim=1)
        plain, layer = torch.split(rows, sizes, dim=-1)
        if rows.ndim == 2:
            return linear @ plain.t() + self._network(deep, layer[None])
        dots: Tensor = torch.linalg.vecdot(linear[:, None], plain)
        return dots + self._network(deep, layer)

    def _network(self, users: Tensor, items: Tensor) -> Tensor:
        """(P, H) and (1 or P, C, H) -> (P, C), chunk by chunk; split, since the gradient of slices is dear."""
        width = max(1, min(items.shape[1], self._at_once(users)))
        height = max(1, self._at_once(users) // width)
        repeat = torch.is_grad_enabled() and users.shape[0] * items.shape[1] > KEPT * self._at_once(users)
        # One entry where all users share the items.
        rows = [torch.split(part, width, dim=1) for part in torch.split(items, height)]
        lines = []
        for number, some in enumerate(torch.split(users, height)):
            pairs = [(some, columns) for columns in rows[number if len(items) > 1 else 0]]
            lines.append(torch.cat([self._chunk(*pair, repeat) for pair in pairs], dim=1))
        return torch.cat(lines)

    def _chunk(self, users: Tensor, items: Tensor, repeat: bool) -> Tensor:
        """(p, H) and (1 or p, c, H) -> (p, c); `repeat`: computed again in the backward pass."""
        scores: Tensor = (
            recomputed(self.tower, self.tower.parameters(), users, items) if repeat else self.tower(users, items)
        )
        return scores

    def _at_once(self, users: Tensor) -> int:
        return self.pairs or PAIRS.get(users.device.type, PAIRS["cuda"])


def build(catalog: Catalog, config: DeepFMConfig) -> FactorizationMachine:
    """Build a DeepFM; see `components.students.fm.make_fields` for what it raises."""
    users, items = make_fields(catalog, config)
    hidden = config.hidden[0]
    user_layer = nn.Linear(len(users) * config.dim, hidden)
    item_layer = nn.Linear(len(items) * config.dim, hidden, bias=False)  # the user's share has the bias
    item_rows = ItemRows(items, config.dim, item_layer)
    head = make_pair_head(catalog, config, item_rows)
    user_rows = UserRows(users, user_layer, config.loss in ABSOLUTE_LOSSES)
    return FactorizationMachine(user_rows, item_rows, head, config.max_length)


def make_pair_head(catalog: Catalog, config: DeepFMConfig, item_rows: ItemRows) -> PairHead:
    """The head with the configured loss."""
    candidates: Candidates | None = None
    compare: Comparison | None = None
    if config.loss == "in-batch":
        candidates = InBatchSampler(catalog.counts, config.num_negatives, config.popularity_correction)
        compare = make_comparison(catalog, config, "sampled-softmax")
    elif config.loss != "softmax":
        candidates, compare = make_sampler(catalog, config), make_comparison(catalog, config, config.loss)
    return PairHead(item_rows, Tower(config.hidden, config.dropout), candidates, compare, config.hidden[0])
