"""A student that begins with what another one learnt: compressed after training, or for another catalog.

Item vectors in blocks begin as the best approximation of the other's vectors that their ranks allow, by truncated
singular value decomposition of each block (Eckart & Young 1936).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.compression.embedding import BlockEmbedding
from components.compression.heads import FlatHead, TreeHead
from components.errors import ConfigError
from components.layers.embedding import FullEmbedding
from components.model import OutputHead, Ranker
from components.students.heads import DotProductHead
from components.students.sequential import SequentialStudent


@dataclass(frozen=True)
class Taken:
    """What a student took over.

    Attributes:
        items: whose vectors it took.
        tensors: of the network.
    """

    items: int
    tensors: int


@torch.no_grad()
def warm_start(model: Ranker, source: Ranker, rows: NDArray[np.int64]) -> Taken:
    """Give `model` the network of `source`, and its item vectors where both know an item.

    Items that the source does not know keep their random vectors; where it knows none, only the network is taken, as
    CpRec transfers between catalogs (Sun et al. 2020, Table 6). The entry of a block in the root of a tree becomes
    the mean of the block's vectors.

    Args:
        model: a student, as it was built.
        source: a trained student of the same kind and width; its layers may share other weights.
        rows: (N,) number of each of the model's items in the source, 0 where it is new there.

    Raises:
        ConfigError: they do not fit.
    """
    if not isinstance(model, SequentialStudent) or not isinstance(source, SequentialStudent):
        raise ConfigError("start: only sasrec, gru4rec and nextitnet can begin with another student's weights")
    known = torch.from_numpy(rows)
    tensors = _take_network(model.network, source.network)
    if not known.any():
        return Taken(0, tensors)
    vectors = _merged(_vectors(model.item_embedding), _vectors(source.item_embedding), known)
    set_vectors(model.item_embedding, vectors)
    _set_head(model.head, source.head, known)
    return Taken(int((known > 0).sum()), tensors)


def truncated(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(k, r) and (r, D) factors whose product is the best approximation of rank r of the (k, D) matrix.

    The second has orthonormal rows, so that the first has the scale of the matrix.
    """
    _, vectors = torch.linalg.eigh(matrix.double().t() @ matrix.double())  # eigenvalues rise
    basis = vectors[:, -rank:].flip(1).to(matrix.dtype)
    return matrix @ basis, basis.t().contiguous()


def set_vectors(embedding: nn.Module, vectors: Tensor) -> None:
    """Make the (N, D) `vectors` those of items 1..N, as well as the embedding can."""
    if isinstance(embedding, FullEmbedding):
        embedding.weight[1:] = vectors
        return
    assert isinstance(embedding, BlockEmbedding)
    for block, (start, end) in enumerate(zip(embedding.blocks.starts, embedding.blocks.ends, strict=True)):
        own, name = vectors[start - 1 : end], str(block)
        if name in embedding.projections:
            own, embedding.projections[name][:] = truncated(own, embedding.blocks.ranks[block])
        embedding.tables[block][:] = own


def _vectors(embedding: nn.Module) -> Tensor:
    assert isinstance(embedding, FullEmbedding | BlockEmbedding)
    return embedding.rows(1, embedding.num_items + 1)


def _merged(own: Tensor, other: Tensor, known: Tensor) -> Tensor:
    """(N, D): the other's vectors of the items that it knows, the own ones of the rest."""
    return torch.where((known > 0)[:, None], other[known.clamp(min=1) - 1], own)


def _take_network(network: nn.Module, source: nn.Module) -> int:
    theirs, taken = source.state_dict(keep_vars=True), 0
    for name, tensor in network.state_dict(keep_vars=True).items():
        if name not in theirs or theirs[name].shape != tensor.shape:
            found = f"of shape {tuple(theirs[name].shape)}" if name in theirs else "missing"
            raise ConfigError(
                f"start: {name} of the network is {found} in the other student, expected {tuple(tensor.shape)}; the "
                "students must have the same kind, width and layers"
            )
        tensor.copy_(theirs[name])
        taken += 1
    return taken


def _set_head(head: OutputHead, source: OutputHead, known: Tensor) -> None:
    """Item vectors of a head that has its own."""
    if isinstance(head, FlatHead) and head.own is not None:
        set_vectors(head.own, _merged(_vectors(head.own), _head_vectors(source), known))
    elif isinstance(head, DotProductHead) and isinstance(own := getattr(head, "table", None), FullEmbedding):
        set_vectors(own, _merged(_vectors(own), _head_vectors(source), known))
    elif isinstance(head, TreeHead):
        _set_tree(head, source, known)


def _set_tree(head: TreeHead, source: OutputHead, known: Tensor) -> None:
    if isinstance(source, TreeHead) and source.blocks == head.blocks and bool((known == _numbers(head)).all()):
        head.load_state_dict(source.state_dict())
        return
    own = nn.init.xavier_uniform_(torch.empty(head.num_items, head.root.shape[1]))
    vectors = _merged(own, _head_vectors(source), known)
    first = head.blocks.sizes[0]
    head.root[:first] = vectors[:first]
    for leaf, (start, end) in enumerate(zip(head.blocks.starts[1:], head.blocks.ends[1:], strict=True)):
        block = vectors[start - 1 : end]
        head.root[first + leaf] = block.mean(0)
        head.leaves[leaf][:], head.projections[leaf][:] = truncated(block, head.blocks.ranks[leaf + 1])


def _numbers(head: TreeHead) -> Tensor:
    return torch.arange(1, head.num_items + 1)


def _head_vectors(source: OutputHead) -> Tensor:
    embedding = getattr(source, "item_embedding", None)
    if not isinstance(embedding, FullEmbedding | BlockEmbedding):
        raise ConfigError(
            "start: a tree has no item vectors that another output could begin with; start from a full one"
        )
    return embedding.rows(1, embedding.num_items + 1)
