"""What all sequential students share: item embedding -> network -> output head."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from components.data.batching import Batch
from components.layers.embedding import FullEmbedding
from components.model import Catalog, ItemTensor, OutputHead, Ranker
from components.students.heads import HeadConfig, make_head


class SequentialConfig(HeadConfig):
    """Arguments that every sequential student takes."""

    dim: int = Field(64, ge=1, description="width of item vectors and states")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    dropout: float = Field(0.2, ge=0, lt=1)


class SequentialStudent(Ranker):
    """A sequential student: item embedding -> network -> output head, each of them handed in.

    Args:
        item_embedding: any `components.layers.embedding.ItemEmbedding` that is a module.
        network: called as ``network(x, positions, last_only)``: (B, L, D) item vectors, padded on the right -> (P, D)
            states at the flat `positions` of the B x L grid; a state depends on the items up to its position alone.
            `last_only` says that every row has exactly one position, its last.
        head: turns states into scores.
        num_items: N.
        max_length: L.
    """

    def __init__(
        self, item_embedding: nn.Module, network: nn.Module, head: OutputHead, num_items: int, max_length: int
    ) -> None:
        super().__init__()
        self.item_embedding, self.network, self.head = item_embedding, network, head
        self.num_items, self.max_length = num_items, max_length

    def states(self, batch: Batch) -> Tensor:
        """(P, D) states at the predicted positions."""
        states: Tensor = self.network(self.item_embedding(batch.items), batch.positions, batch.last_only)
        return states

    def item_tensors(self) -> list[ItemTensor]:
        """The item embedding, with which states are compared too."""
        return plain_table("item_embedding", self.item_embedding)


def plain_table(name: str, embedding: nn.Module) -> list[ItemTensor]:
    """The table of an embedding called `name`; none where it keeps no row per item, as a compressed one."""
    return [ItemTensor(f"{name}.weight", embedding.weight)] if isinstance(embedding, FullEmbedding) else []


def at_positions(outputs: Tensor, positions: Tensor) -> Tensor:
    """(B, L, D) outputs, (P,) flat indices into the B x L grid -> (P, D); no copy where every position is predicted."""
    flat = outputs.reshape(-1, outputs.shape[-1])
    return flat if len(flat) == len(positions) else flat[positions]


def assemble(
    catalog: Catalog, config: SequentialConfig, item_embedding: FullEmbedding, network: nn.Module
) -> SequentialStudent:
    """A student without compression: scores are dot products with the item embedding's own vectors."""
    head = make_head(catalog, config, item_embedding)
    return SequentialStudent(item_embedding, network, head, catalog.num_items, config.max_length)
