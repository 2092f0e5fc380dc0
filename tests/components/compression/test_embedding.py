from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from components.compression.blocks import Blocks, geometric_ranks
from components.compression.embedding import BlockEmbedding
from components.training.config import TrainingConfig
from components.training.optimizer import FusedAdam


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


def test_inference_keeps_a_small_table_until_its_parts_change() -> None:
    embedding = BlockEmbedding(Blocks((5, 12, 30), (8, 4, 2)), 8)
    items, states = torch.tensor([[0, 1, 5], [6, 13, 30]]), torch.randn(3, 8)
    trained, products = embedding(items).detach(), embedding.block_products(states, 4, 20).detach()
    assert embedding.dense() is None  # gradients are wanted
    with torch.no_grad():
        assert embedding.dense() is None  # it is trained
        embedding.eval()
        table = embedding.dense()
        assert table is not None
        assert table.shape == (31, 8)
        assert embedding.dense() is table
        torch.testing.assert_close(embedding(items), trained)
        torch.testing.assert_close(embedding.block_products(states, 4, 20), products)
        embedding.tables[1].mul_(2)
        changed = embedding.dense()
        assert changed is not None
        assert changed is not table
        torch.testing.assert_close(changed[6:13], 2 * table[6:13])
        embedding.load_state_dict({name: tensor.clone() for name, tensor in embedding.state_dict().items()})
        assert embedding.dense() is not changed


@torch.no_grad()
def test_a_step_of_the_optimizer_makes_the_table_anew() -> None:
    """Fused optimizers leave no trace in the tensors that they change."""
    embedding = BlockEmbedding(Blocks((5, 12), (8, 2)), 8)
    optimizer = FusedAdam(embedding.parameters(), TrainingConfig(learning_rate=0.1))
    embedding.eval()
    before = embedding.rows(1, 13).clone()
    embedding.train()
    for parameter in embedding.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    embedding.eval()
    torch.testing.assert_close(embedding.rows(1, 13), dense(embedding)[1:])
    assert (embedding.rows(1, 13) - before).abs().min() > 0.01


def test_a_large_table_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.compression.embedding.DENSE_BYTES", 100)
    embedding = BlockEmbedding(Blocks((5, 12), (8, 2)), 8).eval()
    with torch.no_grad():
        assert embedding.dense() is None
