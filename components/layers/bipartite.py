"""A graph of users and items, and the propagation of vectors along its edges (LightGCN, He et al. 2020)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn


class BipartiteGraph(nn.Module):
    """Edges between users and items. Nodes are users 0..U, then items 0..N; user 0 and PAD have no edges.

    Only the edges are saved, each once; the symmetric matrix is made from them.

    Args:
        edges: (U + 1, N + 1) matrix whose stored entries are the edges.
    """

    def __init__(self, edges: csr_array) -> None:
        super().__init__()
        self.num_users, self.num_items = edges.shape[0] - 1, edges.shape[1] - 1
        self.register_buffer("offsets", torch.from_numpy(edges.indptr.astype(np.int64)))
        self.register_buffer("items", torch.from_numpy(edges.indices.astype(np.int32)))
        for name in ("borders", "neighbors", "weights"):
            self.register_buffer(name, None, persistent=False)
        self.offsets: Tensor  # (U + 2,) borders of the users in `items`
        self.items: Tensor  # (E,)
        self.borders: Tensor  # (U + N + 3,) borders of the nodes in `neighbors`
        self.neighbors: Tensor  # (2 E,) node numbers
        self.weights: Tensor  # (2 E,) entries of the normalized matrix
        self._connect(edges)

    def load_edges(self, offsets: Tensor, items: Tensor) -> None:
        """Take other edges of the same users and items, as `offsets` and `items` of a saved graph."""
        shape = (self.num_users + 1, self.num_items + 1)
        numbers = items.cpu().numpy()
        edges = csr_array((np.ones(len(numbers), np.float32), numbers, offsets.cpu().numpy()), shape=shape)
        device = self.offsets.device
        self.offsets, self.items = offsets.to(device), items.to(device)
        self._connect(edges)

    def _connect(self, edges: csr_array) -> None:
        """Make the rows of ``D^-1/2 A D^-1/2``: those of users from the edges, those of items from their transpose."""
        back = edges.tocsc()
        degrees = np.concatenate([np.diff(edges.indptr), np.diff(back.indptr)])
        neighbors = np.concatenate([edges.indices + len(edges.indptr) - 1, back.indices])
        roots = 1.0 / np.sqrt(np.maximum(degrees, 1))
        weights = np.repeat(roots, degrees) * roots[neighbors]
        kind = np.int32 if len(neighbors) < 2**31 else np.int64
        made = {
            "borders": np.concatenate([[0], np.cumsum(degrees)]).astype(kind),
            "neighbors": neighbors.astype(kind),
            "weights": weights.astype(np.float32),
        }
        for name, array in made.items():
            setattr(self, name, torch.from_numpy(array).to(self.offsets.device))

    def matrix(self) -> Tensor:
        """(U + N + 2, U + N + 2) the symmetric normalized matrix as sparse CSR that shares the graph's memory."""
        size = len(self.borders) - 1
        with warnings.catch_warnings():  # torch calls its sparse CSR a beta, once per process
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
            return torch.sparse_csr_tensor(
                self.borders, self.neighbors, self.weights, (size, size), check_invariants=False
            )

    def user_degrees(self, users: Tensor) -> Tensor:
        """(...) user numbers -> (...) edges of each; 0 for numbers that are not 1..U."""
        inside = torch.where((users > 0) & (users <= self.num_users), users, 0)
        return self.offsets[inside + 1] - self.offsets[inside]

    def item_degrees(self, items: Tensor) -> Tensor:
        """(...) item numbers -> (...) edges of each."""
        nodes = items + self.num_users + 1
        return self.borders[nodes + 1] - self.borders[nodes]

    def propagate(self, vectors: Tensor, num_layers: int) -> Tensor:
        """Mean of the layers ``E_0 .. E_K`` with ``E_{k+1} = D^-1/2 A D^-1/2 E_k`` (LightGCN, Eq. 3, 4 and 7).

        Args:
            vectors: (U + N + 2, D) E_0, one row per node.
            num_layers: K; 0 returns the vectors.

        Returns:
            (U + N + 2, D), differentiable.
        """
        mean: Tensor = _Propagation.apply(vectors, self, num_layers)  # type: ignore[no-untyped-call]
        return mean

    def mean_of_layers(self, vectors: Tensor, num_layers: int) -> Tensor:
        """The numbers of `propagate`, without a gradient."""
        matrix = self.matrix()
        with torch.autocast(vectors.device.type, enabled=False):  # sums over thousands of neighbors stay exact
            layer, total = vectors, vectors.clone()
            for _ in range(num_layers):
                layer = matrix @ layer
                total += layer
        return total.div_(num_layers + 1)


class _Propagation(torch.autograd.Function):
    """``E -> (I + A + .. + A^K) E / (K + 1)``: a polynomial in a symmetric matrix is its own transpose.

    So the gradient is the same propagation, and no layer has to be kept for it.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, graph: BipartiteGraph, num_layers: int) -> Tensor:
        ctx.graph, ctx.num_layers = graph, num_layers
        return graph.mean_of_layers(vectors, num_layers)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return ctx.graph.propagate(grad_outputs[0].contiguous(), ctx.num_layers), None, None
