"""RecGURU-AE: a user vector that can rebuild the history, and recommendations made with it (Li et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.batching import Batch
from components.layers.dropout import Dropout
from components.layers.transformer import EncoderSizes, SelfAttention, TransformerEncoder, gelu, initialize
from components.losses import mean_bpr_loss, sampled_softmax_loss
from components.model import Catalog, ItemTensor, OutputHead, Ranker
from components.schema import PAD
from components.students.heads import NegativeSampler, SampledHead
from components.students.sequential import CompressibleConfig, make_item_embedding, plain_table


class RecGURUConfig(EncoderSizes, CompressibleConfig):
    """Arguments of RecGURU-AE; blocks and their width are those of its authors."""

    outputs: ClassVar[tuple[str, ...]] = ("tied",)  # its losses compare with drawn items

    num_layers: int = Field(3, ge=1, description="blocks of the encoder and of each of the two decoders")
    inner_dim: int = Field(512, ge=1, description="width inside the two-layer network of a block")
    attention_dropout: float | None = Field(None, ge=0, lt=1, description="the same as dropout when null")
    num_negatives: int = Field(5, ge=1, description="items that a target is compared with (BPR)")
    reconstruction_negatives: int = Field(256, ge=1, description="items that a rebuilt item is compared with")
    reconstruction_weight: float = Field(1.0, ge=0, description="of the autoencoder's loss beside that of the ranking")


class DecoderBlock(nn.Module):
    """Causal self-attention, a look at the user vector and a two-layer network, each with a residual and a norm after.

    The paper's decoder attends to copies of the user vector. Equal keys get equal weights, so whatever the query,
    attention to copies returns the one value: a linear map of the user vector, which is what is computed here.
    """

    def __init__(self, dim: int, num_heads: int, inner_dim: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, num_heads, attention_dropout)
        self.read = nn.Linear(dim, dim)
        self.expand, self.contract = nn.Linear(dim, inner_dim), nn.Linear(inner_dim, dim)
        self.attention_norm, self.user_norm, self.network_norm = (nn.LayerNorm(dim, eps=1e-12) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, users: Tensor) -> Tensor:
        """(B, L, D) and user vectors (B, L or 1, D) -> (B, L, D)."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        x = self.user_norm(x + self.dropout(self.read(users)))
        result: Tensor = self.network_norm(x + self.dropout(self.contract(gelu(self.expand(x)))))
        return result


class Decoder(nn.Module):
    """Item vectors and user vectors -> a state per position, which has seen the items up to it.

    Args:
        dim: D.
        num_layers: blocks.
        num_heads: a divisor of `dim`.
        inner_dim: width inside the two-layer network.
        max_length: number of learnt positions.
        dropout: rate on the input and after every sub-layer.
        attention_dropout: rate on attention weights; the same as `dropout` when None.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        inner_dim: int,
        max_length: int,
        dropout: float,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        weights = dropout if attention_dropout is None else attention_dropout
        self.position_embedding = nn.Embedding(max_length, dim)
        self.input_norm, self.dropout = nn.LayerNorm(dim, eps=1e-12), Dropout(dropout)
        self.blocks = nn.ModuleList(
            DecoderBlock(dim, num_heads, inner_dim, dropout, weights) for _ in range(num_layers)
        )
        self.apply(lambda module: initialize(module, 0.02))

    def forward(self, x: Tensor, users: Tensor) -> Tensor:
        """(B, L, D) item vectors, padded on the right, and user vectors (B, L or 1, D) -> (B, L, D)."""
        x = self.dropout(self.input_norm(x + self.position_embedding.weight[: x.shape[1]]))
        for block in self.blocks:
            x = block(x, users)
        return x


class RecGURU(Ranker):
    """Encoder -> user vector; one decoder rebuilds the history from it, another recommends with it.

    This is RecGURU-AE, for one domain: autoencoder and BPR are trained together. The adversarial part, which makes the
    user vectors of two domains alike, is left out, since the batches of a student come from one domain.

    Two readings. The encoder is causal, so that the user vector of a history is its output at the last item whatever
    follows, and one pass gives those of all prefixes. And the recommending decoder sees at each position the user
    vector of the history up to it, in training as in serving, where the paper repeats a single one. A distilled
    RecGURU is trained on its recommendations alone: the autoencoder's loss is no part of `states`.

    Args:
        item_embedding: any `components.layers.embedding.ItemEmbedding` that is a module.
        encoder: called as `TransformerEncoder` is.
        rebuild: the decoder of the autoencoder.
        recommend: the decoder whose output is the state.
        head: turns states into scores.
        autoencoder_head: its loss compares what `rebuild` returns with the items.
        num_items: N.
        max_length: L.
        reconstruction_weight: of the autoencoder's loss.
    """

    def __init__(
        self,
        item_embedding: nn.Module,
        encoder: nn.Module,
        rebuild: nn.Module,
        recommend: nn.Module,
        head: OutputHead,
        autoencoder_head: OutputHead,
        num_items: int,
        max_length: int,
        reconstruction_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.item_embedding, self.encoder = item_embedding, encoder
        self.rebuild, self.recommend = rebuild, recommend
        self.head, self.autoencoder_head = head, autoencoder_head
        self.num_items, self.max_length = num_items, max_length
        self.reconstruction_weight = reconstruction_weight

    def states(self, batch: Batch) -> Tensor:
        """(P, D) states of the recommending decoder at the predicted positions."""
        return self._recommendations(batch, *self._encoded(batch))

    def loss(self, batch: Batch) -> Tensor:
        """BPR of the targets plus the weighted loss of rebuilding the inputs, each a mean over its positions."""
        vectors, users = self._encoded(batch)
        loss = self.head.loss(self._recommendations(batch, vectors, users), batch.targets)
        if self.reconstruction_weight == 0:
            return loss
        return loss + self.reconstruction_weight * self._reconstruction_loss(batch, vectors, users)

    def item_tensors(self) -> list[ItemTensor]:
        """The item embedding, which encoder and decoders read and states are compared with."""
        return plain_table("item_embedding", self.item_embedding, self.head)

    def _encoded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, L, D) item vectors and (B, L, D) user vectors, each of the history up to its position."""
        vectors: Tensor = self.item_embedding(batch.items)
        every = torch.arange(batch.items.numel(), device=batch.items.device)
        users: Tensor = self.encoder(vectors, every)
        return vectors, users.view(vectors.shape)

    def _recommendations(self, batch: Batch, vectors: Tensor, users: Tensor) -> Tensor:
        decoded: Tensor = self.recommend(vectors, users)
        return decoded.flatten(0, 1)[batch.positions]

    def _reconstruction_loss(self, batch: Batch, vectors: Tensor, users: Tensor) -> Tensor:
        """Every item of a row from the items before it and the row's last user vector."""
        last = (batch.lengths - 1)[:, None, None].expand(-1, 1, vectors.shape[2])
        before = F.pad(vectors, (0, 0, 1, -1))  # (B, L, D); nothing stands before the first item
        rebuilt: Tensor = self.rebuild(before, users.gather(1, last))
        real = batch.items != PAD
        return self.autoencoder_head.loss(rebuilt[real], batch.items[real])


def build(catalog: Catalog, config: RecGURUConfig) -> RecGURU:
    """Build a RecGURU-AE with tied item vectors."""
    item_embedding = make_item_embedding(catalog, config)
    sizes = config.encoder_arguments()
    own = NegativeSampler(catalog.counts, config.num_negatives, by_popularity=False, shared=False)
    shared = NegativeSampler(catalog.counts, config.reconstruction_negatives, by_popularity=False, shared=True)
    return RecGURU(
        item_embedding,
        TransformerEncoder(**sizes),
        Decoder(**sizes),
        Decoder(**sizes),
        SampledHead(item_embedding, own, lambda positive, negative, *_: mean_bpr_loss(positive, negative)),
        SampledHead(item_embedding, shared, sampled_softmax_loss),
        catalog.num_items,
        config.max_length,
        config.reconstruction_weight,
    )
