"""UniSRec: universal sequence representations from item text (Hou et al. 2022), the main teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.batching import Batch
from components.errors import ArtifactError, ConfigError
from components.layers.transformer import TransformerEncoder
from components.model import Catalog, Ranker
from components.schema import PAD
from components.teachers.adaptor import MoEAdaptor, Whitening
from components.teachers.heads import CosineHead, unit

Mode = Literal["inductive", "transductive"]
Tune = Literal["full", "adaptor"]
TEXT_FEATURE = "text"
TRANSFERRED = ("items.adaptor.", "items.whitening.", "encoder.")  # what pre-training hands over to another catalog


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


class TextItems(nn.Module):
    """Item vectors from frozen text vectors, plus a learnt vector per item in the transductive mode.

    Args:
        text: (N + 1, d) text vectors; row 0 belongs to PAD.
        adaptor: (n, d) -> (n, D).
        whitening: fitted on `text`, applied in front of the adaptor; None for none.
        learnt: whether every item also has a learnt vector.
    """

    text: Tensor

    def __init__(
        self, text: Tensor, adaptor: MoEAdaptor, whitening: Whitening | None = None, learnt: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("text", text)
        self.adaptor, self.whitening = adaptor, whitening
        self.item_embedding = nn.Embedding(len(text), adaptor.out_dim, padding_idx=PAD) if learnt else None
        if self.item_embedding is not None:
            nn.init.normal_(self.item_embedding.weight, std=0.02)
            with torch.no_grad():
                self.item_embedding.weight[PAD].zero_()
        if whitening is not None:
            whitening.fit(text[1:])

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.text) - 1

    def forward(self) -> Tensor:
        """(N, D) vectors of all items; row ``i`` belongs to item ``i + 1``."""
        vectors = self.adapt(self.text[1:])
        return vectors if self.item_embedding is None else vectors + self.item_embedding.weight[1:]

    def adapt(self, text: Tensor) -> Tensor:
        """(n, d) text vectors -> (n, D), without learnt vectors."""
        vectors: Tensor = self.adaptor(text if self.whitening is None else self.whitening(text))
        return vectors


class UniSRec(Ranker):
    """Item text -> adaptor -> transformer -> a state of norm 1 that is compared with all items by cosine.

    Args:
        items: makes the item vectors.
        encoder: (B, L, D) item vectors -> (P, D) states.
        max_length: L.
        temperature: divides the cosines.
    """

    head: CosineHead

    def __init__(self, items: TextItems, encoder: TransformerEncoder, max_length: int, temperature: float) -> None:
        super().__init__()
        self.items, self.encoder, self.max_length = items, encoder, max_length
        self.num_items = items.num_items
        self.head = CosineHead(self.unit_vectors, temperature)
        self._kept: tuple[tuple[tuple[int, int], ...], Tensor, Tensor] | None = None

    @property
    def temperature(self) -> float:
        """Divides the cosines."""
        return self.head.temperature

    def states(self, batch: Batch) -> Tensor:
        """(P, D) states of norm 1 at the predicted positions."""
        return self.encode(look_up(batch.items, self._tables()[0]), batch.positions, batch.last_only)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over all items; the item vectors are made once, for the histories and for the candidates."""
        self._kept = None
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

    def freeze_encoder(self) -> None:
        """Parameter-efficient tuning: position embedding and transformer blocks keep their values."""
        self.encoder.position_embedding.requires_grad_(False)
        self.encoder.blocks.requires_grad_(False)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of a saved model, also those of an inductive one for another number of items."""
        text = tensors.get("items.text")
        if text is not None and self.items.item_embedding is None:
            self.items.text = self.items.text.new_empty(text.shape)
            self.num_items = self.items.num_items
        self.load_state_dict(dict(tensors))
        self._kept = None

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Take adaptor, whitening and encoder of a model of other items; nothing that belongs to an item.

        Raises:
            ArtifactError: the saved model has other shapes; the message names them.
        """
        own = self.state_dict()
        wanted = [name for name in own if name.startswith(TRANSFERRED)]
        for name in wanted:
            if name not in tensors:
                raise ArtifactError(f"pre-trained weights lack {name!r}; pre-train a UniSRec of the same arguments")
            if tensors[name].shape != own[name].shape:
                raise ArtifactError(
                    f"pre-trained weights: {name!r} has shape {tuple(tensors[name].shape)}, the teacher needs "
                    f"{tuple(own[name].shape)}; use the same dim, num_layers, inner_dim, max_length and text model"
                )
        self.load_state_dict({**own, **{name: tensors[name] for name in wanted}})
        self._kept = None

    def train(self, mode: bool = True) -> UniSRec:
        """Forget the kept item vectors when training goes on."""
        if mode:
            self._kept = None
        super().train(mode)
        return self

    def _tables(self) -> tuple[Tensor, Tensor]:
        """(N, D) item vectors as the encoder reads them, and of norm 1; kept in evaluation until a tensor changes."""
        if self.training or torch.is_grad_enabled():
            self._kept = None  # a gradient may follow, and a fused optimizer's step leaves no trace in the versions
            vectors = self.items()
            return vectors, unit(vectors)
        # The version of a tensor grows with changes in place, such as loading another state.
        key = tuple((t.data_ptr(), t._version) for t in self.items.state_dict(keep_vars=True).values())
        if self._kept is None or self._kept[0] != key:
            vectors = self.items()
            self._kept = (key, vectors, unit(vectors))
        return self._kept[1], self._kept[2]


def look_up(items: Tensor, vectors: Tensor) -> Tensor:
    """(B, L) item numbers, (N, D) vectors of items 1..N -> (B, L, D); PAD gives zeros."""
    return F.embedding(items, F.pad(vectors, (0, 0, 1, 0)))


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
