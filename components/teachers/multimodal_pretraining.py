"""UniM2Rec's pre-training (a reconstruction): users over all domains, a contrastive loss and aligned modalities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.data.batching import Batch
from components.data.flat_sequences import Sequences
from components.schema import PAD
from components.teachers.heads import unit
from components.teachers.pretraining import ContrastiveConfig, Domain, grouped_contrast
from components.teachers.unim2rec import UniM2Rec, alignment_loss

ALIGNED_ITEMS = 2048  # of a batch at most: the loss compares each with each


class MultimodalObjective:
    """Sequence-item contrast plus the alignment of texts and pictures (teachers.md, section 3.4).

    The sequence-item part is UniSRec's: every predicted position is one instance, its negatives are the targets of all
    others in the batch, of whatever domain. There is no sequence-sequence part.

    Args:
        model: the inductive UniM2Rec over the items of all domains.
        config: temperature and weight of the alignment; what only augmentation needs is not read.
    """

    def __init__(self, model: UniM2Rec, config: ContrastiveConfig) -> None:
        self.model, self.config = model, config

    def __call__(self, batch: Batch) -> Tensor:
        """Mean loss over the predicted positions of `batch`; the towers see each of its items once."""
        config, items = self.config, self.model.items
        known, index = torch.unique(torch.cat([batch.items.flatten(), batch.targets]), return_inverse=True)
        texts, images = items.adapt(known)  # (n, D), (n, D), PAD zero
        vectors = items.fuse(texts, images, items.has_text[known], items.shown(known)) * (known != PAD)[:, None]
        inputs, targets = index.split([batch.items.numel(), batch.targets.numel()])
        states = self.model.encode(vectors[inputs.view_as(batch.items)], batch.positions)
        loss = grouped_contrast(states, unit(vectors[targets]), batch.targets, config)
        if config.alignment_weight == 0:
            return loss
        both = torch.nonzero(items.has_text[known] & items.has_image[known])[:, 0]
        both = both[torch.randperm(len(both), device=both.device)[:ALIGNED_ITEMS]]
        return loss + config.alignment_weight * alignment_loss(texts[both], images[both], config.temperature)


def add_merged_users(
    merged: Domain, domains: Sequence[Domain], user_ids: Sequence[Sequence[str]]
) -> tuple[Domain, int]:
    """Also give every user of several domains one sequence over all of them, merged by time.

    Users are the same where their ids are. Only training parts are merged, and the new sequences validate nothing. A
    user of one domain has that sequence already; domains whose log has no times cannot be merged and are left out.

    Args:
        merged: what `merge_domains` made of `domains`.
        domains: in the same order.
        user_ids: per domain, the id of every row of its sequences.

    Returns:
        The domain with more sequences, and how many were added.
    """
    sequences = merged.sequences
    _, person = np.unique(np.array([name for ids in user_ids for name in ids], dtype=str), return_inverse=True)  # (U,)
    timed = [domain.sequences.timestamps is not None for domain in domains]
    usable = np.repeat(timed, [len(domain.sequences) for domain in domains]) & (sequences.train_end > 0)
    domain = np.repeat(np.arange(len(domains)), [len(one.sequences) for one in domains])  # (U,)
    pairs = np.unique(np.stack([person[usable], domain[usable]]), axis=1)  # a user may have several sequences in one
    several = np.bincount(pairs[0], minlength=int(person.max(initial=0)) + 1) > 1
    row = np.repeat(np.arange(len(sequences)), sequences.lengths)  # (I,)
    training = np.arange(len(row)) - sequences.offsets[row] < sequences.train_end[row]
    chosen = np.flatnonzero(training & (usable & several[person])[row])
    if len(chosen) == 0:
        return merged, 0
    # The sort is stable: ties in time keep the order of the domains and of their logs.
    order = chosen[np.lexsort((_times(domains)[chosen], person[row[chosen]]))]
    lengths = np.bincount(person[row[order]])
    lengths = lengths[lengths > 0]
    return _appended(merged, sequences.items[order], lengths), len(lengths)


def _times(domains: Sequence[Domain]) -> NDArray[np.int64]:
    """(I,) seconds of all interactions in the order of the merged sequences, 0 where there are none."""
    parts = [domain.sequences for domain in domains]
    return np.concatenate([np.zeros(len(s.items), np.int64) if s.timestamps is None else s.timestamps for s in parts])


def _appended(merged: Domain, items: NDArray[np.int32], lengths: NDArray[np.int64]) -> Domain:
    """`merged` with more sequences of training items only."""
    old = merged.sequences
    ends = lengths.astype(np.int32)
    last = int(old.users.max(initial=0))
    sequences = Sequences(
        users=np.concatenate([old.users, last + 1 + np.arange(len(lengths))]).astype(np.int32),
        offsets=np.concatenate([old.offsets, old.offsets[-1] + np.cumsum(lengths)]),
        items=np.concatenate([old.items, items]).astype(np.int32),
        train_end=np.concatenate([old.train_end, ends]),
        valid_end=np.concatenate([old.valid_end, ends]),
    )
    return Domain(merged.name, sequences, merged.text, merged.dropped_text, merged.image)
