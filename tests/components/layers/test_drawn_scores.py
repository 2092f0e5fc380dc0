"""Scores of drawn items: both ways give the same numbers and gradients, and the cheaper one is taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from components.layers import drawn_scores as module
from components.layers.drawn_scores import drawn_scores
from components.layers.embedding import FullEmbedding

STATES, ITEMS, DIM = 150, 40, 6


def scored(drawn: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, and gradients of states and table."""
    torch.manual_seed(0)
    embedding = FullEmbedding(ITEMS, DIM, init_std=1.0)
    states = torch.randn(STATES, DIM, requires_grad=True)
    scores = drawn_scores(states, embedding, drawn)
    states_grad, table_grad = torch.autograd.grad(scores, (states, embedding.weight), upstream)
    torch.testing.assert_close(scores, (states[:, None] * embedding.weight[drawn]).sum(-1))
    return scores, states_grad, table_grad


@pytest.mark.parametrize("chunk", [1, 1 << 19])
@pytest.mark.parametrize("number", [1, 9])
def test_both_ways_agree_with_repeats_and_over_chunks(number: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.randint(1, ITEMS + 1, (STATES, number))
    drawn[:, -1] = drawn[:, 0]
    upstream = torch.randn(STATES, number)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    found = {}
    for ratio in (0, ITEMS):
        monkeypatch.setattr(module, "DENSE_RATIO", ratio)
        found[ratio] = scored(drawn, upstream)
    torch.testing.assert_close(found[0], found[ITEMS])
    assert not found[ITEMS][2][0].any(), "PAD gets no gradient"


def test_many_drawn_items_keep_no_vector_per_pair() -> None:
    """What autograd holds is (P, m) numbers and the table, not (P, m, D) vectors; few drawn items fetch no table."""
    embedding = FullEmbedding(ITEMS, DIM)
    states = torch.randn(STATES, DIM, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        drawn_scores(states, embedding, torch.randint(1, ITEMS + 1, (STATES, 20)))
    assert kept
    assert max(kept) <= STATES * 20
