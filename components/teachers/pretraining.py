"""UniSRec's pre-training: two contrastive losses over batches that mix domains (Hou et al. 2022, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from components.data.batching import Batch
from components.data.flat_sequences import Sequences
from components.errors import ConfigError
from components.schema import PAD
from components.teachers.content import ContentRanker
from components.teachers.heads import unit


class ContrastiveConfig(BaseModel):
    """The pre-training losses and their augmentation (teachers.md, section 1.4)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(0.07, gt=0, description="divides the cosines")
    max_negatives: int = Field(
        2048, ge=1, description="instances that are each other's negatives; a larger batch is split into random groups"
    )
    seq_seq_weight: float = Field(1e-3, ge=0, description="weight of the sequence-sequence loss; 0 leaves it out")
    item_drop: float = Field(
        0.2, ge=0, lt=1, description="rate at which an augmented view loses items; never the first"
    )
    word_drop: float = Field(0.2, ge=0, le=1, description="or takes each item's word-dropped text at this rate")
    item_drop_share: float = Field(0.9, ge=0, le=1, description="share of batches with item drop, not word drop")
    alignment_weight: float = Field(0.1, ge=0, description="unim2rec: weight of the alignment of texts and pictures")
    mlm_weight: float = Field(0.1, ge=0, description="recformer: weight of each masked-word loss; 0 leaves them out")
    mlm_share: float = Field(0.15, gt=0, lt=1, description="recformer: share of the tokens that are to be found")
    compat: bool = Field(
        False, description="keep masked pairs in the denominator as exp(0), as the published code; false removes them"
    )


def same_targets(targets: Tensor) -> Tensor:
    """(P,) -> (P, P): whether two different instances have the same target.

    >>> same_targets(torch.tensor([4, 4, 2])).int().tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    return (targets[:, None] == targets[None, :]).fill_diagonal_(False)


def contrastive_loss(
    states: Tensor, positives: Tensor, masked: Tensor, *, temperature: float, compat: bool = False
) -> Tensor:
    """InfoNCE with in-batch negatives (UniSRec, Eq. 5 and 6).

    ``-mean_i log(exp(s_i . v_i / T) / sum_j exp(s_i . v_j / T))``, where the sum leaves out the pairs in `masked`, or,
    with `compat`, counts exp(0) = 1 for each of them.

    Args:
        states: (P, D) of norm 1.
        positives: (P, D) of norm 1; row i belongs to state i, all others are its negatives.
        masked: (P, P) pairs that are no negatives; the diagonal must be False.
        temperature: T.
        compat: count masked pairs as exp(0).

    Returns:
        A scalar; 0 when P = 0.
    """
    if len(states) == 0:
        return (states.sum() + positives.sum()) * 0.0
    logits = (states @ positives.t() / temperature).float()  # (P, P)
    logits = logits.masked_fill(masked, 0.0 if compat else -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def grouped_contrast(
    states: Tensor, positives: Tensor, targets: Tensor, config: ContrastiveConfig, rows: Tensor | None = None
) -> Tensor:
    """`contrastive_loss` within random groups of at most ``max_negatives`` instances, mean over all instances.

    A batch of long histories has tens of thousands of instances; comparing each with each would cost their square.

    Args:
        states: (P, D) of norm 1.
        positives: (P, D) of norm 1.
        targets: (P,) instances with the same target are no negatives of each other.
        rows: (P,) where given, neither are instances of the same row.
    """
    total = (states.sum() + positives.sum()) * 0.0
    for part in random_groups(len(states), config.max_negatives):
        own = part.to(states.device)
        masked = same_targets(targets[own])
        if rows is not None:
            masked |= same_targets(rows[own])
        loss = contrastive_loss(
            states[own], positives[own], masked, temperature=config.temperature, compat=config.compat
        )
        total = total + loss * (len(own) / len(states))
    return total


def random_groups(count: int, size: int) -> Sequence[Tensor]:
    """Numbers 0 .. count - 1 in groups of nearly equal size, at most `size`; in order where one group holds all.

    >>> [len(group) for group in random_groups(7, 3)], random_groups(3, 3)
    ([3, 2, 2], [tensor([0, 1, 2])])
    """
    if count <= size:
        return [torch.arange(count)]
    groups: Sequence[Tensor] = torch.randperm(count).tensor_split(-(-count // size))
    return groups


def drop_items(batch: Batch, rate: float) -> Batch:
    """An augmented view: every item but each row's first is left out at `rate`, the rest moves up to the left.

    A position moves to the last kept item of its history, so one pass gives the views of all histories of a row.
    """
    length = batch.items.shape[1]
    columns = torch.arange(length, device=batch.items.device)
    kept = torch.rand(batch.items.shape, device=batch.items.device) >= rate
    kept[:, 0] = True
    kept &= columns < batch.lengths[:, None]
    place = kept.cumsum(dim=1) - 1  # (B, L) column of an item, and of the last kept item before a dropped one
    lengths = kept.sum(dim=1)
    width = int(lengths.max()) if len(batch) else 1
    items = batch.items.new_full((len(batch), width), PAD)
    rows = torch.arange(len(batch), device=batch.items.device)[:, None].expand_as(kept)
    items[rows[kept], place[kept]] = batch.items[kept]
    positions = batch.rows * width + place.flatten()[batch.positions]
    return replace(batch, items=items, lengths=lengths, positions=positions)


class ContrastiveObjective:
    """The loss of a batch: sequence-item, and a little sequence-sequence.

    Every predicted position of the batch is one instance (history, target): the causal encoder gives all histories of a
    row in one pass. Two histories of one user are no negatives of each other in the sequence-sequence loss, since their
    views may be equal; with one position per row the losses are the published ones. Only the batch's items are adapted.

    Args:
        model: the inductive teacher over the items of all domains.
        config: weights, rates and temperature.
        dropped_text: (N + 1, d) text vectors of the items with some words left out, row 0 for PAD; None where there are
            none, and all batches are then augmented by item drop.
    """

    def __init__(self, model: ContentRanker, config: ContrastiveConfig, dropped_text: Tensor | None = None) -> None:
        self.model, self.config, self.dropped_text = model, config, dropped_text

    def __call__(self, batch: Batch) -> Tensor:
        """Scalar loss of `batch`."""
        config = self.config
        known, index = torch.unique(torch.cat([batch.items.flatten(), batch.targets]), return_inverse=True)
        vectors = self._adapt(known)  # (n, D)
        inputs, targets = index.split([batch.items.numel(), batch.targets.numel()])
        states = self.model.encode(vectors[inputs.view_as(batch.items)], batch.positions)
        loss = grouped_contrast(states, unit(vectors[targets]), batch.targets, config)
        if config.seq_seq_weight == 0:
            return loss
        views = self._augmented(batch)
        return loss + config.seq_seq_weight * grouped_contrast(states, views, batch.targets, config, batch.rows)

    def _adapt(self, items: Tensor, text: Tensor | None = None) -> Tensor:
        """(n,) item numbers -> (n, D), PAD zero."""
        return self.model.items.represent(items, text) * (items != PAD)[:, None]

    def _augmented(self, batch: Batch) -> Tensor:
        """(P, D) states of the augmented view; one coin for the whole batch."""
        config = self.config
        if self.dropped_text is None or float(torch.rand(())) < config.item_drop_share:
            view = drop_items(batch, config.item_drop)
            known, index = torch.unique(view.items, return_inverse=True)
            return self.model.encode(self._adapt(known)[index], view.positions)
        known, index = torch.unique(batch.items, return_inverse=True)
        self.dropped_text = self.dropped_text.to(known.device)
        whole, dropped = self._adapt(known)[index], self._adapt(known, self.dropped_text)[index]
        swap = torch.rand(batch.items.shape, device=known.device) < config.word_drop
        return self.model.encode(torch.where(swap[..., None], dropped, whole), batch.positions)


@dataclass(frozen=True)
class Domain:
    """One data set of pre-training.

    Attributes:
        name: for messages.
        sequences: its sequences.
        text: (N + 1, d) text vectors of its items.
        dropped_text: (N + 1, d) the same with some words left out, or None.
        image: (N + 1, d') image vectors of its items, zero where an item has none; None where no item has any.
    """

    name: str
    sequences: Sequences
    text: NDArray[np.float32]
    dropped_text: NDArray[np.float32] | None = None
    image: NDArray[np.float32] | None = None


def merge_domains(domains: Sequence[Domain]) -> Domain:
    """All domains as one: items and users of each are numbered on after those before it, so batches mix domains."""
    first_items = np.cumsum([0, *(len(domain.text) - 1 for domain in domains)])
    first_users = np.cumsum([0, *(int(domain.sequences.users.max(initial=0)) for domain in domains)])
    first_places = np.cumsum([0, *(len(domain.sequences.items) for domain in domains)])
    parts = [domain.sequences for domain in domains]
    sequences = Sequences(
        users=np.concatenate([s.users + n for s, n in zip(parts, first_users, strict=False)]).astype(np.int32),
        offsets=np.concatenate([[0], *(s.offsets[1:] + n for s, n in zip(parts, first_places, strict=False))]),
        items=np.concatenate([s.items + n for s, n in zip(parts, first_items, strict=False)]).astype(np.int32),
        train_end=np.concatenate([s.train_end for s in parts]),
        valid_end=np.concatenate([s.valid_end for s in parts]),
    )
    dropped = [domain.dropped_text for domain in domains if domain.dropped_text is not None]
    return Domain(
        name="+".join(domain.name for domain in domains),
        sequences=sequences,
        text=_stack([domain.text for domain in domains]),
        dropped_text=_stack(dropped) if len(dropped) == len(domains) else None,
        image=_stack_images(domains),
    )


def _stack_images(domains: Sequence[Domain]) -> NDArray[np.float32] | None:
    """Image vectors of all domains below each other, zeros for a domain without any.

    Raises:
        ConfigError: two domains have vectors of different width.
    """
    widths = {domain.image.shape[1]: domain.name for domain in domains if domain.image is not None}
    if len(widths) > 1:
        shown = ", ".join(f"{name} {width}" for width, name in widths.items())
        raise ConfigError(f"pretrain.domains: image vectors of different width ({shown}); use one encoder for all")
    if not widths:
        return None
    width = next(iter(widths))
    blank = [np.zeros((len(domain.text), width), np.float32) for domain in domains]
    return _stack([blank[k] if domain.image is None else domain.image for k, domain in enumerate(domains)])


def _stack(tables: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Tables (N_k + 1, d) below each other; row 0 of the first serves all."""
    return np.concatenate([tables[0], *(table[1:] for table in tables[1:])])
