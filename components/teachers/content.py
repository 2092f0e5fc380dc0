"""What teachers share that make item vectors from content: UniSRec from texts, UniM2Rec from texts and pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.batching import Batch
from components.errors import ConfigError
from components.layers.kept import Kept
from components.layers.transformer import EncoderSizes
from components.model import Catalog, Ranker
from components.schema import PAD
from components.teachers.heads import CosineHead, unit
from components.teachers.transfer import transferred

Mode = Literal["inductive", "transductive"]
Tune = Literal["full", "adaptor"]
TEXT_FEATURE = "text"
IMAGE_FEATURE = "image"
FEATURES = (TEXT_FEATURE, IMAGE_FEATURE)
ENCODER = "encoder."


class ContentConfig(EncoderSizes):
    """Arguments that both kinds take; the defaults are PRM-KD's (teachers.md, section 4)."""

    mode: Mode = Field(
        "transductive", description="inductive: content alone; transductive: content and a learnt vector per item"
    )
    dim: int = Field(300, ge=1, description="width of item vectors and states")
    dropout: float = Field(0.1, ge=0, lt=1)
    adaptor_dropout: float = Field(0.2, ge=0, lt=1, description="rate on the content vectors")
    num_experts: int = Field(8, ge=1, description="parametric whitenings in an adaptor")
    temperature: float = Field(0.07, gt=0, description="divides the cosines")
    whitening: bool = Field(False, description="whiten the content vectors in front of their adaptor")
    tune: Tune = Field("full", description="adaptor: keep position embedding and transformer as they were pre-trained")


def content_table(catalog: Catalog, name: str) -> Tensor:
    """(N + 1, d) content vectors of the catalog, row 0 for PAD.

    Raises:
        ConfigError: the catalog has none of this name.
    """
    if name not in catalog.features:
        raise ConfigError(f"the teacher needs item {name} vectors, and the catalog has none; add a section `features`")
    return torch.from_numpy(np.array(catalog.features[name], dtype=np.float32))


class ContentItems(nn.Module, ABC):
    """Item vectors from frozen content, plus a learnt vector per item in the transductive mode.

    Attributes:
        content: names of the buffers with one row per item, row 0 for PAD; ``text`` is always among them.
        transferred: prefixes of the tensors that pre-training hands over to another catalog.
        item_embedding: the learnt vectors; None in the inductive mode.
    """

    content: ClassVar[tuple[str, ...]]
    transferred: ClassVar[tuple[str, ...]]
    text: Tensor
    item_embedding: nn.Embedding | None

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.text) - 1

    @abstractmethod
    def forward(self) -> Tensor:
        """(N, D) vectors of all items; row ``i`` belongs to item ``i + 1``."""

    @abstractmethod
    def describe(self, content: Mapping[str, Tensor]) -> Tensor:
        """(M, d) content vectors by name, of any items -> (M, D) vectors from content alone."""

    @abstractmethod
    def represent(self, items: Tensor, text: Tensor | None = None) -> Tensor:
        """(n,) item numbers -> (n, D) vectors from content alone, those of PAD without meaning.

        Args:
            items: item numbers.
            text: (N + 1, d) text vectors to use instead of the items' own.
        """


def learnt_vectors(rows: int, dim: int) -> nn.Embedding:
    """(rows, dim) learnt item vectors, row PAD zero."""
    embedding = nn.Embedding(rows, dim, padding_idx=PAD)
    nn.init.normal_(embedding.weight, std=0.02)
    with torch.no_grad():
        embedding.weight[PAD].zero_()
    return embedding


class ContentRanker(Ranker):
    """Item content -> item vectors -> transformer -> a state of norm 1 that is compared with all items by cosine.

    Args:
        items: makes the item vectors.
        config: sizes of the network that turns (B, L, D) item vectors into (P, D) states, and what is trained of it.
    """

    head: CosineHead
    items: ContentItems

    def __init__(self, items: ContentItems, config: ContentConfig) -> None:
        super().__init__()
        self.items, self.encoder, self.max_length = items, config.encoder(), config.max_length
        self.num_items = items.num_items
        self.head = CosineHead(self.unit_vectors, config.temperature)
        self.kept: Kept[tuple[Tensor, Tensor]] = Kept()
        if config.tune == "adaptor":
            self.freeze_encoder()

    @property
    def temperature(self) -> float:
        """Divides the cosines."""
        return self.head.temperature

    def states(self, batch: Batch) -> Tensor:
        """(P, D) states of norm 1 at the predicted positions."""
        return self.encode(look_up(batch.items, self._tables()[0]), batch.positions, batch.last_only)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over all items; the item vectors are made once, for the histories and for the candidates."""
        self.kept.forget()
        vectors = self.items()
        states = self.encode(look_up(batch.items, vectors), batch.positions, batch.last_only)
        return self.head.loss_against(states, unit(vectors), batch.targets)

    def encode(self, vectors: Tensor, positions: Tensor, last_only: bool = False) -> Tensor:
        """(B, L, D) item vectors -> (P, D) states of norm 1 at the flat indices `positions`."""
        return unit(self.encoder(vectors, positions, last_only))

    def unit_vectors(self) -> Tensor:
        """(N, D) item vectors of norm 1, which states are compared with; row ``i`` belongs to item ``i + 1``."""
        return self._tables()[1]

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """(N + 1, D) item vectors of norm 1 without dropout, row 0 (PAD) zero: what annotation stores."""
        training = self.training
        try:
            return F.pad(self.eval().unit_vectors(), (0, 0, 1, 0))
        finally:
            self.train(training)

    @torch.no_grad()
    def content_vectors(self, catalog: Catalog | None = None) -> Tensor:
        """See `components.model.ReadsContent`."""
        training = self.training
        try:
            return unit(self.eval().items.describe(self._content(catalog)))
        finally:
            self.train(training)

    def _content(self, catalog: Catalog | None) -> dict[str, Tensor]:
        """(M, d) content vectors by name of the items of `catalog`, or of the own ones."""
        own = {name: getattr(self.items, name) for name in self.items.content if name in FEATURES}
        read = {name: table for name, table in own.items() if table is not None}
        if catalog is None:
            return {name: table[1:] for name, table in read.items()}
        found = {TEXT_FEATURE: content_table(catalog, TEXT_FEATURE)}
        found |= {name: content_table(catalog, name) for name in read if name in catalog.features}
        for name, table in found.items():
            if table.shape[1] != read[name].shape[1]:
                expected = (catalog.num_items + 1, read[name].shape[1])
                raise ConfigError(f"item {name} vectors: the teacher reads {expected}, got {tuple(table.shape)}")
        return {name: table[1:].to(read[name]) for name, table in found.items()}

    def freeze_encoder(self) -> None:
        """Parameter-efficient tuning: position embedding and transformer blocks keep their values."""
        self.encoder.position_embedding.requires_grad_(False)
        self.encoder.blocks.requires_grad_(False)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of a saved model, also those of an inductive one for another number of items."""
        if self.items.item_embedding is None:
            for name in self.items.content:
                saved, own = tensors.get(f"items.{name}"), getattr(self.items, name)
                if saved is not None and own is not None:
                    setattr(self.items, name, own.new_empty(saved.shape))
            self.num_items = self.items.num_items
        self.load_state_dict(dict(tensors))
        self.kept.forget()

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Take adaptors, whitening and encoder of a model of other items; nothing that belongs to an item.

        Raises:
            ArtifactError: the saved model has other shapes; the message names them.
        """
        own = self.state_dict()
        wanted = {name: name for name in own if name.startswith((*self.items.transferred, ENCODER))}
        arguments = "dim, num_layers, inner_dim, max_length and text model"
        self.load_state_dict(transferred(own, tensors, wanted, type(self).__name__, arguments))
        self.kept.forget()

    def _tables(self) -> tuple[Tensor, Tensor]:
        """(N, D) item vectors as the encoder reads them, and of norm 1; kept in evaluation until a tensor changes."""
        if self.training or torch.is_grad_enabled():
            self.kept.forget()  # a gradient may follow
            return self._made()
        return self.kept.get(self._made, self.items.state_dict(keep_vars=True).values())

    def _made(self) -> tuple[Tensor, Tensor]:
        vectors = self.items()
        return vectors, unit(vectors)


def look_up(items: Tensor, vectors: Tensor) -> Tensor:
    """(B, L) item numbers, (N, D) vectors of items 1..N -> (B, L, D); PAD gives zeros."""
    return F.embedding(items, F.pad(vectors, (0, 0, 1, 0)))
