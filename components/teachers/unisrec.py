"""UniSRec: universal sequence representations from item text (Hou et al. 2022), the main teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from components.errors import ConfigError
from components.model import Catalog
from components.teachers.adaptor import MoEAdaptor, Whitening
from components.teachers.content import (
    TEXT_FEATURE,
    ContentConfig,
    ContentItems,
    ContentRanker,
    content_table,
    learnt_vectors,
)


class UniSRecConfig(ContentConfig):
    """Arguments of UniSRec."""


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

    def describe(self, content: Mapping[str, Tensor]) -> Tensor:
        """See `ContentItems.describe`."""
        return self.adapt(content[TEXT_FEATURE])

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
        self.num_items = self.items.num_items
        self.kept.forget()


def build(catalog: Catalog, config: UniSRecConfig) -> UniSRec:
    """Build a UniSRec for the catalog's text vectors.

    Raises:
        ConfigError: the catalog has no text vectors, or all of them are zero.
    """
    text = content_table(catalog, TEXT_FEATURE)
    if catalog.sequences is not None and not text.any():
        raise ConfigError("no item has a text, and UniSRec reads nothing else; check input.items, or take unim2rec")
    adaptor = MoEAdaptor(text.shape[1], config.dim, config.num_experts, config.adaptor_dropout)
    whitening = Whitening(text.shape[1]) if config.whitening else None
    return UniSRec(TextItems(text, adaptor, whitening, config.mode == "transductive"), config)
