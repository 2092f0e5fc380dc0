"""UniM2Rec: universal sequence representations from item texts and pictures. A RECONSTRUCTION.

Of the published model (arXiv 2311.01831) neither code nor a full description was at hand. Known are its inputs (texts,
pictures, learnt vectors), SASRec's encoder, cross-entropy, pre-training over several domains, and that it is made for
content that is missing or noisy. The rest follows UniSRec: gates, modality dropout and losses are ours. Results must
not be quoted as those of the published model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.model import Catalog
from components.teachers.adaptor import MoEAdaptor, Whitening
from components.teachers.content import (
    IMAGE_FEATURE,
    TEXT_FEATURE,
    ContentConfig,
    ContentItems,
    ContentRanker,
    content_table,
    learnt_vectors,
)


class UniM2RecConfig(ContentConfig):
    """Arguments of UniM2Rec."""

    images: bool = Field(True, description="read the pictures, where the catalog has any")
    modality_dropout: float = Field(
        0.2, ge=0, lt=1, description="rate at which training hides an item's picture; never its text"
    )


class Tower(nn.Module):
    """One modality: its vectors -> adapted vectors and how much they want to be heard.

    The wish is ``w . tanh(A h)`` for the adapted vector h (teachers.md, section 3.2). `w` starts at 0: at first all
    present modalities weigh the same.

    Args:
        in_dim: width of the modality's vectors.
        out_dim: D.
        num_experts: of the adaptor.
        dropout: rate on the input.
        whitening: whether the vectors are whitened first.
    """

    def __init__(self, in_dim: int, out_dim: int, num_experts: int, dropout: float, whitening: bool) -> None:
        super().__init__()
        self.adaptor = MoEAdaptor(in_dim, out_dim, num_experts, dropout)
        self.whitening = Whitening(in_dim) if whitening else None
        self.gate = nn.Linear(out_dim, out_dim, bias=False)
        self.wish = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_dim) -> (n, D)."""
        vectors: Tensor = self.adaptor(x if self.whitening is None else self.whitening(x))
        return vectors

    def logits(self, vectors: Tensor) -> Tensor:
        """(n, D) adapted vectors -> (n,) logits of the gate."""
        hidden: Tensor = torch.tanh(self.gate(vectors))
        return hidden @ self.wish


class MultimodalItems(ContentItems):
    """Item vectors from frozen text and image vectors, plus a learnt vector per item in the transductive mode.

    A modality is absent where its row is all zero. An item without text and picture has the zero vector (and its learnt
    one).

    Args:
        text: (N + 1, d_t) text vectors; row 0 belongs to PAD.
        image: (N + 1, d_v) image vectors; None where no item has a picture, which leaves out the tower.
        text_tower: (n, d_t) -> (n, D).
        image_tower: (n, d_v) -> (n, D); given exactly if `image` is.
        learnt: whether every item also has a learnt vector.
        modality_dropout: rate at which training hides the picture of an item that also has a text.
    """

    content: ClassVar[tuple[str, ...]] = ("text", "image", "has_text", "has_image")
    transferred: ClassVar[tuple[str, ...]] = ("items.text_tower.", "items.image_tower.")
    image: Tensor | None
    has_text: Tensor
    has_image: Tensor

    def __init__(
        self,
        text: Tensor,
        image: Tensor | None,
        text_tower: Tower,
        image_tower: Tower | None,
        *,
        learnt: bool,
        modality_dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("text", text)
        self.register_buffer("image", image)
        self.register_buffer("has_text", text.ne(0).any(dim=1))
        self.register_buffer("has_image", torch.zeros_like(self.has_text) if image is None else image.ne(0).any(dim=1))
        self.text_tower, self.image_tower = text_tower, image_tower
        self.modality_dropout = modality_dropout
        self.item_embedding = learnt_vectors(len(text), text_tower.adaptor.out_dim) if learnt else None
        _fit(text_tower, text, self.has_text)
        if image_tower is not None and image is not None:
            _fit(image_tower, image, self.has_image)

    def forward(self) -> Tensor:
        """(N, D) vectors of all items; row ``i`` belongs to item ``i + 1``."""
        vectors = self.represent(torch.arange(1, len(self.text), device=self.text.device))
        return vectors if self.item_embedding is None else vectors + self.item_embedding.weight[1:]

    def describe(self, content: Mapping[str, Tensor]) -> Tensor:
        """See `ContentItems.describe`; a row of zeros, and an image table that is not there, are absent modalities."""
        text, image = content[TEXT_FEATURE], content.get(IMAGE_FEATURE)
        has_text = text.ne(0).any(dim=1)
        texts = self.text_tower(text) * has_text[:, None]
        if image is None or self.image_tower is None:
            return self.fuse(texts, torch.zeros_like(texts), has_text, torch.zeros_like(has_text))
        has_image = image.ne(0).any(dim=1)
        return self.fuse(texts, self.image_tower(image) * has_image[:, None], has_text, has_image)

    def represent(self, items: Tensor, text: Tensor | None = None) -> Tensor:
        """See `ContentItems.represent`."""
        return self.fuse(*self.adapt(items, text), self.has_text[items], self.shown(items))

    def adapt(self, items: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(n,) item numbers -> (n, D) adapted texts and (n, D) adapted pictures, zero where the item has none."""
        has_text = self.has_text[items]
        texts = self.text_tower((self.text if text is None else text)[items]) * has_text[:, None]
        if self.image is None or self.image_tower is None:
            return texts, torch.zeros_like(texts)
        # Whatever a row without a picture holds, NaN included, must not be seen.
        known = self.has_image[items][:, None]
        return texts, self.image_tower(self.image[items].masked_fill(~known, 0.0)) * known

    def fuse(self, texts: Tensor, images: Tensor, has_text: Tensor, has_image: Tensor) -> Tensor:
        """The gated sum of both modalities: (n, D), (n, D), (n,), (n,) -> (n, D)."""
        weights = self.gates(texts, images, has_text, has_image)
        return weights[:, :1] * texts + weights[:, 1:] * images

    def gates(self, texts: Tensor, images: Tensor, has_text: Tensor, has_image: Tensor) -> Tensor:
        """(n, 2) weights of text and picture that sum to 1; an absent one has 0.

        Without either the text has all the weight; it is zero then.
        """
        logits = self.text_tower.logits(texts)
        other = torch.zeros_like(logits) if self.image_tower is None else self.image_tower.logits(images)
        present = torch.stack([has_text | ~has_image, has_image], dim=1)
        return torch.stack([logits, other], dim=1).masked_fill(~present, -torch.inf).softmax(dim=1)

    def shown(self, items: Tensor) -> Tensor:
        """(n,) item numbers -> (n,) whether the picture is seen; in training some are hidden, never an item's all."""
        has_image = self.has_image[items]
        if not self.training or self.modality_dropout == 0.0:
            return has_image
        kept = torch.rand(items.shape, device=items.device) >= self.modality_dropout
        return has_image & (kept | ~self.has_text[items])


def _fit(tower: Tower, vectors: Tensor, known: Tensor) -> None:
    """Fit a tower's whitening on the vectors of the items that have any."""
    if tower.whitening is not None:
        tower.whitening.fit(vectors[1:][known[1:]])


class UniM2Rec(ContentRanker):
    """Item texts and pictures -> gated adaptors -> transformer -> a state of norm 1, compared by cosine."""

    items: MultimodalItems


def build(catalog: Catalog, config: UniM2RecConfig) -> UniM2Rec:
    """Build a UniM2Rec for the catalog's text and image vectors; without the latter it reads texts only.

    Raises:
        ConfigError: the catalog has no text vectors.
    """

    def tower(width: int) -> Tower:
        return Tower(width, config.dim, config.num_experts, config.adaptor_dropout, config.whitening)

    text = content_table(catalog, TEXT_FEATURE)
    seen = config.images and IMAGE_FEATURE in catalog.features
    image = content_table(catalog, IMAGE_FEATURE) if seen else None
    items = MultimodalItems(
        text,
        image,
        tower(text.shape[1]),
        None if image is None else tower(image.shape[1]),
        learnt=config.mode == "transductive",
        modality_dropout=config.modality_dropout,
    )
    return UniM2Rec(items, config)


def alignment_loss(texts: Tensor, images: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE: an item's text finds its own picture among those of the others, and the other way round.

    ``-1/2 mean_i (log softmax_j(t_i . v_j / T)_i + log softmax_j(v_i . t_j / T)_i)`` of vectors scaled to norm 1.

    Args:
        texts: (n, D) adapted texts.
        images: (n, D) adapted pictures of the same items.
        temperature: T.

    Returns:
        A scalar; 0 when n < 2, where there is nothing to tell apart.
    """
    if len(texts) < 2:
        return (texts.sum() + images.sum()) * 0.0
    logits = (F.normalize(texts, dim=1) @ F.normalize(images, dim=1).t() / temperature).float()  # (n, n)
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own))
