"""The best items of a tree softmax without looking into every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from components.compression.heads import TreeHead
from components.schema import PAD

Rule = Literal["exact", "paper", "code"]
Mask = NDArray[np.bool_]
SLACK: Final = 1e-2  # of logits: rounding never leaves out what may be among the best


@dataclass(frozen=True)
class TopItems:
    """The best items of some states.

    Attributes:
        items: (P, k) item numbers, best first.
        scores: (P, k) their log probabilities; -inf, and the item PAD, where no item is left.
        visited: (P,) blocks below the root that were looked into.
    """

    items: Tensor
    scores: Tensor
    visited: Tensor


@torch.no_grad()
def top_items(
    head: TreeHead,
    states: Tensor,
    k: int,
    seen: Sequence[NDArray[np.int32]] | None = None,
    rule: Rule = "exact",
    among: Sequence[Mask | None] | None = None,
) -> TopItems:
    """The `k` best items of every state (CpRec, section 3.2.2).

    "exact" is branch and bound: an item of block j is at most as probable as the block, so blocks are visited by
    falling probability until one is no more probable than the k-th best item so far. "paper" stops where the k largest
    entries of the root are all items, which is exact too, and else visits every block. "code" visits a block if it is
    among the k largest entries of the root, as the authors' code does: that is not exact.

    Args:
        head: the tree.
        states: (P, D).
        k: items per state.
        seen: items to leave out, for each state.
        rule: which blocks are visited.
        among: (N + 1,) for each state which items may be ranked, None for all. That leaves bounds as they are: a block
            is at least as probable as those of its items that remain.
    """
    root = _numbers_only(F.linear(states, head.root).log_softmax(1))
    own = head.blocks.sizes[0]
    items = states.new_zeros(len(states), k, dtype=torch.int64)
    scores = states.new_full((len(states), k), -torch.inf)
    values, places = _without(root[:, :own].clone(), 1, seen, among, range(len(states))).topk(min(k, own), dim=1)
    items, scores = _merge(items, scores, places + 1, values)
    parents, order = root[:, own:].sort(dim=1, descending=True)
    limit = root.topk(min(k, root.shape[1]), dim=1).values[:, -1]
    settled = root[:, own:].amax(1) < limit  # the k largest entries of the root are items
    visited = torch.zeros(len(states), dtype=torch.int64, device=states.device)
    for place in range(order.shape[1]):
        parent = parents[:, place]
        if rule == "exact":
            needed = parent > scores[:, -1]
        elif rule == "paper":
            needed = ~settled
        else:
            needed = parent >= limit
        for leaf in sorted(set(order[needed, place].tolist())):
            rows = (needed & (order[:, place] == leaf)).nonzero().flatten()
            start = head.blocks.starts[leaf + 1]
            logits = F.linear(F.linear(states[rows], head.projections[leaf]), head.leaves[leaf])
            outside = parent[rows, None] - logits.logsumexp(1, keepdim=True)  # what makes a logit a log probability
            logits = _without(logits, start, seen, among, rows.tolist())
            values, places = _largest(logits, k, scores[rows, -1] - outside[:, 0])
            found = _numbers_only(values + outside)
            items[rows], scores[rows] = _merge(items[rows], scores[rows], places + start, found)
            visited[rows] += 1
    return TopItems(items.masked_fill(scores == -torch.inf, PAD), scores, visited)


def _largest(logits: Tensor, k: int, limits: Tensor) -> tuple[Tensor, Tensor]:
    """(P, at most k) largest values and their columns; of a single row only those that may be above its limit.

    To look for what is above a number takes a fifth of the time of a search for the k largest of many.
    """
    if len(logits) == 1 and not logits.is_cuda:
        columns = (logits[0] >= limits[0] - SLACK).nonzero().flatten()
        values, places = logits[:, columns].topk(min(k, len(columns)), dim=1)
        return values, columns[places]
    values, places = logits.topk(min(k, logits.shape[1]), dim=1)
    return values, places


def _numbers_only(scores: Tensor) -> Tensor:
    """NaN ranks nothing."""
    return scores.masked_fill(scores.isnan(), -torch.inf)


def _merge(items: Tensor, scores: Tensor, new_items: Tensor, new_scores: Tensor) -> tuple[Tensor, Tensor]:
    """The best k of (P, k) and (P, M) candidates."""
    every, numbers = torch.cat([scores, new_scores], dim=1), torch.cat([items, new_items], dim=1)
    best, chosen = every.topk(items.shape[1], dim=1)
    return numbers.gather(1, chosen), best


def _without(
    scores: Tensor,
    start: int,
    seen: Sequence[NDArray[np.int32]] | None,
    among: Sequence[Mask | None] | None,
    rows: Sequence[int],
) -> Tensor:
    """(P, C) scores of the items from `start` on; those that row ``rows[p]`` has seen or may not have become -inf."""
    for place, row in enumerate(rows):
        if seen is not None:
            columns = seen[row].astype(np.int64) - start
            inside = columns[(columns >= 0) & (columns < scores.shape[1])]
            scores[place, torch.from_numpy(inside).to(scores.device)] = -torch.inf
        mask = None if among is None else among[row]
        if mask is not None:
            barred = torch.from_numpy(~mask[start : start + scores.shape[1]]).to(scores.device)
            scores[place, barred] = -torch.inf
    return scores
