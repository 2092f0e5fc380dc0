from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from components.compression.blocks import Blocks, geometric_ranks
from components.compression.embedding import BlockEmbedding


def random_blocks(seed: int, dim: int = 8) -> Blocks:
    generator = np.random.default_rng(seed)
    num_blocks = int(generator.integers(1, 6))
    ends = np.sort(generator.choice(np.arange(1, 41), num_blocks, replace=False))
    return Blocks(tuple(ends.tolist()), geometric_ranks(dim, num_blocks, int(generator.integers(1, 4))))


def dense(embedding: BlockEmbedding) -> Tensor:
    """(N + 1, D): the plain product, block by block, without any look-up."""
    parts = [torch.zeros(1, embedding.dim)]
    for block, table in enumerate(embedding.tables):
        name = str(block)
        parts.append(table @ embedding.projections[name] if name in embedding.projections else table)
    return torch.cat(parts)


@pytest.mark.parametrize("seed", range(25))
def test_rows_are_those_of_the_assembled_matrix(seed: int) -> None:
    """Check K7, at random partitions and at every edge."""
    torch.manual_seed(seed)
    embedding = BlockEmbedding(random_blocks(seed), 8)
    table = dense(embedding)
    edges = [item for end in embedding.blocks.ends for item in (end, end + 1) if item <= embedding.num_items]
    for items in (torch.tensor(edges), torch.randint(0, len(table), (3, 5)), torch.zeros(2, 2, dtype=torch.int64)):
        torch.testing.assert_close(embedding(items), table[items])
    torch.testing.assert_close(embedding.rows(1, len(table)), table[1:])
    states, candidates = torch.randn(4, 8), torch.randint(1, len(table), (9,))
    torch.testing.assert_close(embedding.products(states, candidates), states @ table[candidates].t())
    for start in range(1, len(table), 7):
        stop = min(start + 7, len(table))
        torch.testing.assert_close(embedding.block_products(states, start, stop), states @ table[start:stop].t())
    assert embedding.products(states, candidates[:0]).shape == (4, 0)


def test_gradients_are_those_of_the_assembled_matrix() -> None:
    torch.manual_seed(0)
    embedding = BlockEmbedding(Blocks((3, 9, 20), (8, 3, 2)), 8)
    items, weights = torch.randint(0, 21, (6, 5)), torch.randn(6, 5, 8)
    (embedding(items) * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in embedding.named_parameters()}
    embedding.zero_grad()
    (dense(embedding)[items] * weights).sum().backward()
    for name, parameter in embedding.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_vectors_of_all_blocks_begin_with_the_scale_of_a_full_table() -> None:
    torch.manual_seed(0)
    embedding = BlockEmbedding(Blocks((500, 2000, 9000), (64, 16, 4)), 64, init_std=0.02)
    table = dense(embedding)
    for start, end in zip(embedding.blocks.starts, embedding.blocks.ends, strict=True):
        assert table[start : end + 1].std().item() == pytest.approx(0.02, rel=0.15)


def test_no_rank_may_exceed_the_width() -> None:
    with pytest.raises(ValueError, match="no rank may exceed dim 4"):
        BlockEmbedding(Blocks((3, 9), (8, 2)), 4)
