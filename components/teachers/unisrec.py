"""UniSRec: universal sequence representations from item text (Hou et al. 2022), the main teacher."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from components.errors import ConfigError
from components.layers.transformer import TransformerEncoder
from components.model import Catalog
from components.teachers.adaptor import MoEAdaptor, Whitening
from components.teachers.content import TEXT_FEATURE, ContentItems, ContentRanker, Mode, Tune, learnt_vectors


class UniSRecConfig(BaseModel):
    """Arguments of UniSRec; the defaults are PRM-KD's (teachers.md, section 4)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        "transductive", description="inductive: text only; transductive: text and a learnt vector per item"
    )
    dim: int = Field(300, ge=1, description="width of item vectors and states")
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1)
    inner_dim: int = Field(256, ge=1, description="width inside the two-layer network of a block")
    dropout: float = Field(0.1, ge=0, lt=1)
    adaptor_dropout: float = Field(0.2, ge=0, lt=1, description="rate on the text vectors")
    num_experts: int = Field(8, ge=1, description="parametric whitenings in the adaptor")
    temperature: float = Field(0.07, gt=0, description="divides the cosines")
    whitening: bool = Field(False, description="whiten the text vectors in front of the adaptor")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    tune: Tune = Field("full", description="adaptor: keep position embedding and transformer as they were pre-trained")


class TextItems(ContentItems):
    """Item vectors from frozen text vectors, plus a learnt vector per item in the transductive mode.

    Args:
        text: (N + 1, d) text vectors; row 0 belongs to PAD.
        adaptor: (n, d) -> (n, D).
        whitening: fitted on `text`, applied in front of the adaptor; None for none.
        learnt: whether every item also has a learnt vector.
    """

    content: ClassVar[tuple[str, ...]] = ("text",)
    transferred: ClassVar[tuple[str, ...]] = ("items.adaptor.", "items.whitening.")

    def __init__(
        self, text: Tensor, adaptor: MoEAdaptor, whitening: Whitening | None = None, learnt: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("text", text)
        self.adaptor, self.whitening = adaptor, whitening
        self.item_embedding = learnt_vectors(len(text), adaptor.out_dim) if learnt else None
        if whitening is not None:
            whitening.fit(text[1:])

    def forward(self) -> Tensor:
        """(N, D) vectors of all items; row ``i`` belongs to item ``i + 1``."""
        vectors = self.adapt(self.text[1:])
        return vectors if self.item_embedding is None else vectors + self.item_embedding.weight[1:]

    def represent(self, items: Tensor, text: Tensor | None = None) -> Tensor:
        """See `ContentItems.represent`."""
        return self.adapt((self.text if text is None else text)[items])

    def adapt(self, text: Tensor) -> Tensor:
        """(n, d) text vectors -> (n, D), without learnt vectors."""
        vectors: Tensor = self.adaptor(text if self.whitening is None else self.whitening(text))
        return vectors


class UniSRec(ContentRanker):
    """Item text -> adaptor -> transformer -> a state of norm 1 that is compared with all items by cosine."""

    def set_text(self, text: Tensor) -> None:
        """Rank another catalog, inductively.

        Args:
            text: (M + 1, d) text vectors of the new catalog, row 0 for PAD.

        Raises:
            ConfigError: the model also has learnt item vectors, which new items lack, or `d` differs.
        """
        if self.items.item_embedding is not None:
            raise ConfigError("mode: a transductive model has learnt vectors of its own items only; use mode=inductive")
        if text.ndim != 2 or text.shape[1] != self.items.text.shape[1]:
            raise ConfigError(f"text vectors: expected (M + 1, {self.items.text.shape[1]}), got {tuple(text.shape)}")
        self.items.text = text.to(self.items.text)
        self.num_items, self._kept = self.items.num_items, None


def build(
    catalog: Catalog,
    *,
    mode: Mode,
    dim: int,
    num_layers: int,
    num_heads: int,
    inner_dim: int,
    dropout: float,
    adaptor_dropout: float,
    num_experts: int,
    temperature: float,
    whitening: bool,
    max_length: int,
    tune: Tune,
) -> UniSRec:
    """Build a UniSRec for the catalog's text vectors.

    Raises:
        ConfigError: the catalog has no text vectors.
    """
    if TEXT_FEATURE not in catalog.features:
        raise ConfigError("unisrec needs item text vectors, and the catalog has none; run the stage `features` first")
    text = torch.from_numpy(np.array(catalog.features[TEXT_FEATURE], dtype=np.float32))
    adaptor = MoEAdaptor(text.shape[1], dim, num_experts, adaptor_dropout)
    items = TextItems(text, adaptor, Whitening(text.shape[1]) if whitening else None, mode == "transductive")
    encoder = TransformerEncoder(dim, num_layers, num_heads, inner_dim, max_length, dropout)
    model = UniSRec(items, encoder, max_length, temperature)
    if tune == "adaptor":
        model.freeze_encoder()
    return model
