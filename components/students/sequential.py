"""What all sequential students share: item embedding -> network -> output head, and the losses that a head may have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from components.data.batching import Batch
from components.layers.embedding import FullEmbedding
from components.losses import bce_loss, bpr_loss, gbce_beta, gbce_loss, sampled_softmax_loss
from components.model import Catalog, OutputHead, Ranker
from components.students.heads import Comparison, DotProductHead, NegativeSampler, SampledHead


class SequentialConfig(BaseModel):
    """Arguments that every sequential student takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="width of item vectors and states")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    dropout: float = Field(0.2, ge=0, lt=1)
    loss: Literal["softmax", "sampled-softmax", "gbce", "bce", "bpr"] = Field(
        "softmax", description="softmax: over all items; the others draw negatives"
    )
    num_negatives: int = Field(256, ge=1, description="negatives of a sampled loss")
    negatives: Literal["uniform", "popularity"] = Field("uniform", description="how they are drawn")
    shared_negatives: bool = Field(True, description="one draw for a whole batch, a matrix product; else per position")
    gbce_calibration: float = Field(0.75, ge=0, le=1, description="t of gBCE; 0 is bce")


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


def make_head(catalog: Catalog, config: SequentialConfig, item_embedding: FullEmbedding) -> OutputHead:
    """The head with the configured loss, tied to `item_embedding`."""
    if config.loss == "softmax":
        return DotProductHead(item_embedding)
    by_popularity = config.negatives == "popularity"
    sampler = NegativeSampler(catalog.counts, config.num_negatives, by_popularity, config.shared_negatives)
    beta = gbce_beta(catalog.num_items, config.num_negatives, config.gbce_calibration)
    comparisons: dict[str, Comparison] = {
        "sampled-softmax": sampled_softmax_loss,
        "gbce": lambda positive, negative, *_: gbce_loss(positive, negative, beta),
        "bce": lambda positive, negative, *_: bce_loss(positive, negative),
        "bpr": lambda positive, negative, *_: bpr_loss(positive, negative),
    }
    return SampledHead(item_embedding, sampler, comparisons[config.loss])
