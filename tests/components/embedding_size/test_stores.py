"""Tables of rows: what Adam does to them, what they hold in bytes, and that nobody's embedding is lost."""

from __future__ import annotations

import pytest
import torch

from components.embedding_size.networks import SizeChain
from components.embedding_size.reservoir import Reservoir
from components.embedding_size.row_adam import Rows
from components.embedding_size.sizes import LARGEST, SIZES, total_dim
from components.embedding_size.stores import ExactStore, histogram


@pytest.mark.parametrize("steps", [3, 60, 300])
def test_rows_that_wait_move_as_under_a_dense_adam(steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    start = torch.randn(7, 3, generator=generator)
    table = Rows(3, 0.01)
    table.take(start)
    dense = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([dense], lr=0.01)
    for step in range(1, steps + 1):
        rows = torch.randperm(7, generator=generator)[: 1 + step % 3]
        torch.testing.assert_close(table.read(rows, step - 1), dense[rows].detach(), rtol=0, atol=2e-5)
        gradient = torch.randn(len(rows), 3, generator=generator)
        dense.grad = torch.zeros_like(dense)
        dense.grad[rows] = gradient
        optimizer.step()
        table.update(rows, gradient, step)
    everybody = torch.arange(7)
    torch.testing.assert_close(table.peek(everybody, steps), dense.detach(), rtol=0, atol=2e-5)


def test_sparse_rows_stand_still() -> None:
    table = Rows(2, 0.1, drift=False)
    table.take(torch.ones(2, 2))
    table.update(torch.tensor([0]), torch.ones(1, 2), 1)
    moved = table.peek(torch.tensor([0, 1]), 1)
    assert torch.equal(table.read(torch.tensor([0, 1]), 50), moved)
    assert moved[0, 0] == pytest.approx(0.9)
    assert torch.equal(moved[1], torch.ones(2))


def test_a_look_changes_nothing() -> None:
    table = Rows(2, 0.1)
    table.take(torch.ones(1, 2))
    table.update(torch.tensor([0]), torch.ones(1, 2), 1)
    before = table.tensors()
    seen = table.peek(torch.tensor([0]), 9)
    assert all(torch.equal(before[name], one) for name, one in table.tensors().items())
    assert torch.equal(seen, table.read(torch.tensor([0]), 9))
    assert not torch.equal(before["touched"], table.tensors()["touched"])


def filled(count: int, seed: int = 0) -> tuple[ExactStore, SizeChain]:
    store = ExactStore(0.01, torch.Generator().manual_seed(seed))
    store.ensure(count)
    torch.manual_seed(seed)
    return store, SizeChain()


@pytest.mark.parametrize("seed", range(4))
def test_e10_bytes_are_the_sum_of_the_sizes_after_any_enlargements(seed: int) -> None:
    store, chain = filled(200, seed)
    generator = torch.Generator().manual_seed(seed)
    sizes = [0] * 200
    expected = {entity: store.branches(torch.tensor([entity]), 0, learn=False)[0][0] for entity in range(200)}
    for _ in range(40):
        if torch.rand((), generator=generator) < 0.3:
            store.ensure(len(sizes) + 25)
            for entity in range(len(sizes), len(sizes) + 25):
                expected[entity] = store.branches(torch.tensor([entity]), 0, learn=False)[0][0]
            sizes += [0] * 25
        drawn = torch.randperm(len(sizes), generator=generator)[:60].sort().values
        chosen = drawn[store.size_of(drawn) < LARGEST]
        store.enlarge(chosen, chain.transforms, 0)
        for entity in chosen.tolist():
            expected[entity] = chain.transforms[sizes[entity]](expected[entity]).detach()
            sizes[entity] += 1
        assert store.sizes.tolist() == sizes
        assert store.used_bytes == 4 * total_dim(histogram(store.sizes))
        slack = sum((64 + (len(table) // 8 + 1) * 3) * table.width * 4 for table in store.tables)
        assert store.held_bytes <= store.used_bytes + slack
    for entity, value in expected.items():
        held = store.branches(torch.tensor([entity]), 0, learn=False)[sizes[entity]][0]
        torch.testing.assert_close(held, value, rtol=0, atol=1e-5)
    store.compact()
    assert store.held_bytes == store.used_bytes == 4 * total_dim(histogram(store.sizes))
    for entity, value in expected.items():
        held = store.branches(torch.tensor([entity]), 0, learn=False)[sizes[entity]][0]
        torch.testing.assert_close(held, value, rtol=0, atol=1e-5)


def test_freed_rows_are_given_out_again() -> None:
    store, chain = filled(60)
    before = store.tables[0].used
    store.enlarge(torch.arange(30), chain.transforms, 0)
    store.ensure(80)
    assert store.tables[0].used == before
    assert len(store.tables[0]) == 50


def test_the_largest_size_cannot_be_enlarged() -> None:
    store, chain = filled(3)
    for _ in range(LARGEST):
        store.enlarge(torch.tensor([1]), chain.transforms, 0)
    assert histogram(store.sizes) == [2, 0, 0, 0, 0, 1]
    with pytest.raises(ValueError, match="1 entities have the largest size already"):
        store.enlarge(torch.tensor([0, 1]), chain.transforms, 0)


def test_new_rows_begin_without_moments() -> None:
    store, chain = filled(2)
    leaves = store.branches(torch.tensor([0, 1]), 0, learn=True)
    leaves[0].sum().backward()
    store.update(1)
    store.enlarge(torch.tensor([0]), chain.transforms, 1)
    assert store.tables[1].first.abs().sum() == 0
    assert store.tables[0].first.abs().sum() > 0
    assert store.tables[1].width == SIZES[1]


def test_a_reservoir_is_a_uniform_sample() -> None:
    hits = torch.zeros(100)
    for seed in range(300):
        sample = Reservoir(10, 1, torch.Generator().manual_seed(seed))
        for start in range(0, 100, 7):
            sample.add(torch.arange(start, min(start + 7, 100)).unsqueeze(1))
        assert len(sample.rows) == 10
        hits[sample.rows[:, 0]] += 1
    assert hits.sum() == 3000
    assert abs(float(hits[:50].sum()) / 3000 - 0.5) < 0.04
    assert hits.min() > 8  # 30 expected
