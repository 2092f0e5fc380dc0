"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018), the main student."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from components.data.batching import Batch
from components.layers.embedding import FullEmbedding
from components.layers.transformer import TransformerEncoder
from components.model import Catalog, OutputHead, Ranker
from components.students.heads import DotProductHead


class SASRecConfig(BaseModel):
    """Arguments of SASRec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="width of item vectors and states")
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1)
    inner_dim: int = Field(256, ge=1, description="width inside the two-layer network of a block")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    dropout: float = Field(0.2, ge=0, lt=1)
    attention_dropout: float | None = Field(None, ge=0, lt=1, description="the same as dropout when null")
    norm: Literal["post", "pre"] = "post"
    activation: Literal["gelu", "relu", "silu"] = "gelu"


class SASRec(Ranker):
    """A sequential student: item embedding -> network -> output head, each of them handed in.

    Args:
        item_embedding: any `components.layers.embedding.ItemEmbedding` that is a module.
        network: turns (B, L, D) item vectors into (P, D) states.
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


def build(
    catalog: Catalog,
    *,
    dim: int,
    num_layers: int,
    num_heads: int,
    inner_dim: int,
    max_length: int,
    dropout: float,
    attention_dropout: float | None,
    norm: Literal["post", "pre"],
    activation: str,
) -> SASRec:
    """Build an uncompressed SASRec with tied item vectors."""
    item_embedding = FullEmbedding(catalog.num_items, dim)
    network = TransformerEncoder(
        dim, num_layers, num_heads, inner_dim, max_length, dropout, attention_dropout, norm, activation
    )
    return SASRec(item_embedding, network, DotProductHead(item_embedding), catalog.num_items, max_length)
