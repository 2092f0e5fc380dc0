"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018), the main student."""

from __future__ import annotations

from components.layers.embedding import FullEmbedding
from components.layers.transformer import EncoderConfig
from components.model import Catalog
from components.students.sequential import SequentialConfig, SequentialStudent, assemble


class SASRecConfig(SequentialConfig, EncoderConfig):
    """Arguments of SASRec."""


def build(catalog: Catalog, config: SASRecConfig) -> SequentialStudent:
    """Build an uncompressed SASRec with tied item vectors."""
    item_embedding = FullEmbedding(catalog.num_items, config.dim)
    return assemble(catalog, config, item_embedding, config.encoder())
