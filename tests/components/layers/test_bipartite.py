from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from components.layers.bipartite import BipartiteGraph

EDGES = [(1, 1), (1, 2), (2, 2), (2, 3)]  # S3: users 1 and 2, items 1 to 3


def graph(edges: list[tuple[int, int]] = EDGES, users: int = 2, items: int = 3) -> BipartiteGraph:
    dense = np.zeros((users + 1, items + 1), np.float32)
    for user, item in edges:
        dense[user, item] = 1
    return BipartiteGraph(csr_array(dense))


def random_graph(seed: int = 0) -> BipartiteGraph:
    chosen = np.random.default_rng(seed).random((8, 7)) < 0.4
    chosen[0] = chosen[:, 0] = False
    return BipartiteGraph(csr_array(chosen.astype(np.float32)))


def dense_propagation(graph: BipartiteGraph, vectors: Tensor, num_layers: int) -> Tensor:
    """The formula of the paper on a dense matrix, edge by edge, for autograd to differentiate."""
    size = len(vectors)
    adjacency = torch.zeros(size, size, dtype=vectors.dtype)
    for user in range(graph.num_users + 1):
        for item in graph.items[graph.offsets[user] : graph.offsets[user + 1]].tolist():
            node = graph.num_users + 1 + item
            adjacency[user, node] = adjacency[node, user] = 1
    degrees = adjacency.sum(1)
    roots = torch.where(degrees > 0, degrees.clamp(min=1).rsqrt(), 0)
    normalized = roots[:, None] * adjacency * roots[None]
    layers = [vectors]
    for _ in range(num_layers):
        layers.append(normalized @ layers[-1])
    return torch.stack(layers).mean(0)


def test_s3_values_worked_out_by_hand() -> None:
    start = torch.tensor([0.0, 1, 0, 0, 0, 2, 0])[:, None]  # user 0, users 1..2, PAD, items 1..3
    matrix = graph().matrix()
    first = matrix @ start
    second = matrix @ first
    assert first[:, 0].tolist() == pytest.approx([0, 1, 1, 0, 0.70711, 0.5, 0], abs=1e-5)
    assert second[:, 0].tolist() == pytest.approx([0, 0.75, 0.25, 0, 0.70711, 1, 0.70711], abs=1e-5)
    mean = graph().propagate(start, 2)[:, 0]
    assert mean.tolist() == pytest.approx([0, 0.91667, 0.41667, 0, 0.47140, 1.16667, 0.23570], abs=1e-5)


def test_s4_the_matrix_is_symmetric_and_normalized_by_both_degrees() -> None:
    dense = graph().matrix().to_dense()
    assert torch.equal(dense, dense.t())
    assert dense[1, 4].item() == pytest.approx(1 / math.sqrt(2))
    assert dense[1, 5].item() == pytest.approx(0.5)
    assert (dense != 0).sum() == 2 * len(EDGES)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_propagation_and_its_gradient_are_those_of_dense_autograd(num_layers: int) -> None:
    subject = random_graph().double()
    torch.manual_seed(0)
    start = torch.randn(8 + 7, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        subject.propagate(start, num_layers), dense_propagation(subject, start, num_layers), rtol=1e-6, atol=1e-7
    )
    upstream = torch.randn(8 + 7, 4, dtype=torch.float64)
    (found,) = torch.autograd.grad(subject.propagate(start, num_layers), start, upstream)
    (expected,) = torch.autograd.grad(dense_propagation(subject, start, num_layers), start, upstream)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)  # weights were rounded to fp32
    assert torch.autograd.gradcheck(lambda x: subject.propagate(x, num_layers), start)
    assert torch.autograd.gradgradcheck(lambda x: subject.propagate(x, num_layers).square(), start)


def test_a_gradient_without_memory_of_its_own_is_taken() -> None:
    start = torch.randn(7, 3, requires_grad=True)
    graph().propagate(start, 2).sum().backward()  # sum sends one number, expanded
    expected = graph().propagate(torch.ones(7, 3), 2)
    torch.testing.assert_close(start.grad, expected)


def test_degrees_count_edges_and_strangers_have_none() -> None:
    subject = graph([(1, 1), (1, 2), (3, 2)], users=3)
    assert subject.user_degrees(torch.tensor([0, 1, 2, 3, 4, -1])).tolist() == [0, 2, 0, 1, 0, 0]
    assert subject.item_degrees(torch.tensor([[0, 1], [2, 3]])).tolist() == [[0, 1], [2, 0]]


def test_loaded_edges_give_the_matrix_that_they_were_saved_from() -> None:
    saved = random_graph()
    assert set(saved.state_dict()) == {"offsets", "items"}, "what can be made from the edges is not saved"
    empty = BipartiteGraph(csr_array((8, 7), dtype=np.float32))
    assert empty.matrix().to_dense().count_nonzero() == 0
    empty.load_edges(*saved.state_dict().values())
    assert torch.equal(empty.matrix().to_dense(), saved.matrix().to_dense())
