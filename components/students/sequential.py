"""What all sequential students share: item embedding -> network -> output head."""

from __future__ import annotations

from typing import ClassVar, Final, Self, cast

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from components.compression.config import CompressionConfig
from components.compression.embedding import BlockEmbedding
from components.compression.heads import FlatHead, TreeHead
from components.compression.sharing import Sharing, shared_kernels
from components.data.batching import Batch
from components.layers.embedding import FullEmbedding
from components.layers.packed import can_pack, packed_states
from components.layers.transformer import TransformerEncoder, share_layers
from components.model import Catalog, ItemTensor, OutputHead, Ranker
from components.students.heads import DotProductHead, HeadConfig, make_head

BLOCK_SHARINGS: Final[tuple[Sharing, ...]] = ("none", "cb", "ab")  # attention and network have other shapes
OWN_LOSS: Final = ("tree", "flat")  # outputs that are trained by the softmax over all items alone


class CompressibleConfig(BaseModel):
    """Arguments of a student whose item vectors and layers can be compressed."""

    sharings: ClassVar[tuple[Sharing, ...]] = ("none",)
    outputs: ClassVar[tuple[str, ...]] = ("tree", "flat", "tied", "full")

    dim: int
    compression: CompressionConfig | None = Field(None, description="smaller item vectors and shared layers")

    @model_validator(mode="after")
    def _compression_fits(self) -> Self:
        compression = self.compression
        if compression is None:
            return self
        compression.check_width(self.dim)
        for name, known in (("sharing", self.sharings), ("output", self.outputs)):
            if (value := getattr(compression, name)) not in known:
                raise ValueError(f"compression.{name}: this student knows {', '.join(known)}, not {value}")
        loss = getattr(self, "loss", "softmax")
        if compression.output in OWN_LOSS and loss != "softmax":
            raise ValueError(f"loss: {loss} needs output: tied or full; a {compression.output} output has a softmax")
        return self


class SequentialConfig(CompressibleConfig, HeadConfig):
    """Arguments that every sequential student takes."""

    dim: int = Field(64, ge=1, description="width of item vectors and states")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    dropout: float = Field(0.2, ge=0, lt=1)


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

    def independent_states(self, batch: Batch) -> Tensor:
        """(B, D) states after every row, none of which changes another; a transformer encodes them together.

        Compressed item vectors that are not kept as a table are products themselves, which change with the number of
        items: those rows stay alone.
        """
        network = self.network
        if not (isinstance(network, TransformerEncoder) and can_pack(network) and _only_looks_up(self.item_embedding)):
            return super().independent_states(batch)
        columns = torch.arange(batch.items.shape[1], device=batch.items.device)
        items = batch.items[columns < batch.lengths[:, None]]  # (M,)
        return packed_states(network, self.item_embedding(items), batch.lengths)

    def item_tensors(self) -> list[ItemTensor]:
        """The item embedding, with which states are compared too."""
        return plain_table("item_embedding", self.item_embedding, self.head)


def _only_looks_up(embedding: nn.Module) -> bool:
    """Whether item vectors are read from a table, so that they do not depend on what else is read."""
    if isinstance(embedding, BlockEmbedding):
        return embedding.dense() is not None
    return isinstance(embedding, FullEmbedding)


def plain_table(name: str, embedding: nn.Module, head: OutputHead) -> list[ItemTensor]:
    """The table of an embedding called `name`; none where a new item's row is not all that it needs, as in blocks."""
    if not isinstance(embedding, FullEmbedding) or getattr(head, "item_embedding", None) is not embedding:
        return []
    return [ItemTensor(f"{name}.weight", embedding.weight)]


def at_positions(outputs: Tensor, positions: Tensor) -> Tensor:
    """(B, L, D) outputs, (P,) flat indices into the B x L grid -> (P, D); no copy where every position is predicted."""
    flat = outputs.reshape(-1, outputs.shape[-1])
    return flat if len(flat) == len(positions) else flat[positions]


def shared_encoder(encoder: TransformerEncoder, config: CompressibleConfig) -> TransformerEncoder:
    """The encoder, some of whose blocks share weights where the student is compressed."""
    if config.compression:
        kernels = shared_kernels(len(encoder.blocks), config.compression.sharing)
        owners = {number: block for block, pair in reversed(list(enumerate(kernels))) for number in pair}
        share_layers(encoder, [(owners[first], owners[second]) for first, second in kernels])
    return encoder


def make_item_embedding(
    catalog: Catalog, config: CompressibleConfig, init_std: float = 0.02
) -> FullEmbedding | BlockEmbedding:
    """The item vectors that the network reads: a full table, or blocks where the student is compressed."""
    compression = config.compression
    if compression is None or compression.input == "full":
        return FullEmbedding(catalog.num_items, config.dim, init_std)
    return BlockEmbedding(compression.blocks(catalog.counts[1:], config.dim), config.dim, init_std)


def make_output_head(
    catalog: Catalog, config: SequentialConfig, item_embedding: FullEmbedding | BlockEmbedding
) -> OutputHead:
    """The head: tied to the item embedding, unless compression says otherwise."""
    return compressed_head(catalog, config, item_embedding) or make_head(catalog, config, item_embedding)


def compressed_head(
    catalog: Catalog, config: CompressibleConfig, item_embedding: FullEmbedding | BlockEmbedding
) -> OutputHead | None:
    """The head that compression asks for; None where it is that of the uncompressed student."""
    compression = config.compression
    if compression is None:
        return None
    if compression.output == "tree":
        return TreeHead(compression.blocks(catalog.counts[1:], config.dim), config.dim)
    if compression.output == "flat":
        return FlatHead(BlockEmbedding(compression.blocks(catalog.counts[1:], config.dim), config.dim), tied=False)
    is_softmax = getattr(config, "loss", "softmax") == "softmax"
    if compression.output == "tied":
        if is_softmax and isinstance(item_embedding, BlockEmbedding):
            return FlatHead(item_embedding, tied=True)
        return None
    own = FullEmbedding(catalog.num_items, config.dim)
    head = DotProductHead(own) if is_softmax else make_head(catalog, cast(HeadConfig, config), own)
    head.add_module("table", own)
    return head


def assemble(
    catalog: Catalog, config: SequentialConfig, item_embedding: FullEmbedding | BlockEmbedding, network: nn.Module
) -> SequentialStudent:
    """A student of these parts; scores are dot products with the item embedding's own vectors, if not compressed."""
    head = make_output_head(catalog, config, item_embedding)
    return SequentialStudent(item_embedding, network, head, catalog.num_items, config.max_length)
