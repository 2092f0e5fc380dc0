"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018), the main student."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.layers.embedding import FullEmbedding
from components.layers.transformer import TransformerEncoder
from components.model import Catalog
from components.students.sequential import SequentialConfig, SequentialStudent, assemble


class SASRecConfig(SequentialConfig):
    """Arguments of SASRec."""

    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1)
    inner_dim: int = Field(256, ge=1, description="width inside the two-layer network of a block")
    attention_dropout: float | None = Field(None, ge=0, lt=1, description="the same as dropout when null")
    norm: Literal["post", "pre"] = "post"
    activation: Literal["gelu", "relu", "silu"] = "gelu"


def build(catalog: Catalog, config: SASRecConfig) -> SequentialStudent:
    """Build an uncompressed SASRec with tied item vectors."""
    item_embedding = FullEmbedding(catalog.num_items, config.dim)
    network = TransformerEncoder(
        config.dim,
        config.num_layers,
        config.num_heads,
        config.inner_dim,
        config.max_length,
        config.dropout,
        config.attention_dropout,
        config.norm,
        config.activation,
    )
    return assemble(catalog, config, item_embedding, network)
