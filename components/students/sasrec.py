"""SASRec: self-attentive sequential recommendation (Kang & McAuley 2018), the main student."""

from __future__ import annotations

from typing import ClassVar

from components.compression.sharing import Sharing
from components.layers.transformer import EncoderConfig
from components.model import Catalog
from components.students.sequential import (
    BLOCK_SHARINGS,
    SequentialConfig,
    SequentialStudent,
    assemble,
    make_item_embedding,
    shared_encoder,
)


class SASRecConfig(SequentialConfig, EncoderConfig):
    """Arguments of SASRec."""

    sharings: ClassVar[tuple[Sharing, ...]] = BLOCK_SHARINGS


def build(catalog: Catalog, config: SASRecConfig) -> SequentialStudent:
    """Build a SASRec, with tied item vectors unless it is compressed."""
    return assemble(catalog, config, make_item_embedding(catalog, config), shared_encoder(config.encoder(), config))
