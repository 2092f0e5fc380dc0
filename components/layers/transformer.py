"""The transformer encoder that SASRec, UniSRec and BERT4Rec share: causal, or reading both ways."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from components.layers.attention import dropped_attention
from components.layers.dropout import Dropout

Norm = Literal["post", "pre"]


def gelu(x: Tensor) -> Tensor:
    """GELU of (..., L, D), past oneDNN.

    On a CPU torch hands contiguous inputs to oneDNN, which keeps a compiled primitive for every shape that it meets:
    200 MB more after an epoch of batches of all lengths. A transposed view takes torch's own kernel, a quarter slower.
    """
    return F.gelu(x.transpose(-1, -2)).transpose(-1, -2)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": F.relu, "silu": F.silu}


class SelfAttention(nn.Module):
    """Multi-head self-attention; causal, where nothing else is said: a position sees itself and what came before it.

    Rows are padded on the right, so a real position never sees padding and no mask beside the causal one is needed.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.dropout = dropout
        self.project_in = nn.Linear(dim, 3 * dim)
        self.project_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `visible` (B, 1, 1, L) says which positions of a row all of it may see."""
        query, key, value = (self._split(part) for part in self.project_in(x).chunk(3, dim=-1))  # (B, H, L, D / H)
        rate = self.dropout if self.training else 0.0
        if visible is not None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=rate)
        elif rate and x.device.type == "cpu":
            mixed = dropped_attention(query, key, value, rate)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=rate)
        return self._join(mixed)

    def at(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, L, D) -> (P, D): the output at one position of every row only; cheap in evaluation and serving."""
        visible = torch.arange(x.shape[1], device=x.device)[None, :] <= columns[:, None]  # (P, L)
        if not self.training:
            return self._one_query(x, x[rows, columns], visible)
        dim = x.shape[-1]
        weight, bias = self.project_in.weight, self.project_in.bias
        query = self._split(F.linear(x[rows, columns][:, None], weight[:dim], bias[:dim]))  # (P, H, 1, D / H)
        key, value = (self._split(part) for part in F.linear(x, weight[dim:], bias[dim:]).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible[:, None, None, :], dropout_p=self.dropout
        )
        return self._join(mixed)[:, 0]

    def _one_query(self, x: Tensor, chosen: Tensor, visible: Tensor) -> Tensor:
        """(P, L, D), (P, D), (P, L) -> (P, D), without keys and values of all positions.

        ``q (W x)' = (q W) x'`` and ``sum_l p_l (V x_l) = V sum_l p_l x_l``: the matrices meet one vector a head, not L.
        The bias of keys adds the same to all logits of a query; that of values comes out whole, as weights sum to 1.
        """
        dim, heads = x.shape[-1], self.num_heads
        to_query, to_key, to_value = self.project_in.weight.chunk(3)
        query = F.linear(chosen, to_query, self.project_in.bias[:dim]).view(-1, heads, dim // heads).transpose(0, 1)
        asked = torch.bmm(query, to_key.view(heads, -1, dim)).transpose(0, 1)  # (P, H, D)
        logits = torch.bmm(asked, x.transpose(1, 2)) * (dim // heads) ** -0.5  # (P, H, L)
        weights = logits.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
        read = torch.bmm(weights, x).transpose(0, 1)  # (H, P, D)
        mixed = torch.bmm(read, to_value.view(heads, -1, dim).transpose(1, 2)).transpose(0, 1).flatten(1)
        out: Tensor = self.project_out(mixed + self.project_in.bias[2 * dim :])
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        out: Tensor = self.project_out(x.transpose(1, 2).flatten(2))
        return out


class TransformerBlock(nn.Module):
    """Attention and a two-layer network, each with a residual connection and a layer norm after or before it."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        inner_dim: int,
        dropout: float,
        attention_dropout: float,
        norm: Norm,
        activation: str,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, num_heads, attention_dropout)
        self.expand, self.contract = nn.Linear(dim, inner_dim), nn.Linear(inner_dim, dim)
        self.attention_norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.network_norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.dropout = Dropout(dropout)
        self.norm = norm
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); causal without `visible`."""
        if self.norm == "pre":
            return self._network(x + self.dropout(self.attention(self.attention_norm(x), visible)))
        return self._network(self.attention_norm(x + self.dropout(self.attention(x, visible))))

    def at(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, L, D) -> (P, D): `forward` at (row, column) alone; row p of P must be row p of B."""
        chosen = x[rows, columns]
        if self.norm == "pre":
            return self._network(chosen + self.dropout(self.attention.at(self.attention_norm(x), rows, columns)))
        return self._network(self.attention_norm(chosen + self.dropout(self.attention.at(x, rows, columns))))

    def _network(self, x: Tensor) -> Tensor:
        inner = self.network_norm(x) if self.norm == "pre" else x
        out = x + self.dropout(self.contract(self.activation(self.expand(inner))))
        result: Tensor = out if self.norm == "pre" else self.network_norm(out)
        return result


class TransformerEncoder(nn.Module):
    """Item vectors of a history -> one state per predicted position (SASRec, Kang & McAuley 2018; RecBole flavor).

    Args:
        dim: D, width of item vectors and states.
        num_layers: blocks.
        num_heads: attention heads, a divisor of `dim`.
        inner_dim: width inside the two-layer network.
        max_length: L, number of learnt positions.
        dropout: rate on the input and after every sub-layer.
        attention_dropout: rate on attention weights; the same as `dropout` when None.
        norm: "post" as RecBole and UniSRec, or "pre" as the original SASRec.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int = 2,
        num_heads: int = 2,
        inner_dim: int = 256,
        max_length: int = 50,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        norm: Norm = "post",
        activation: str = "gelu",
        layer_norm_eps: float = 1e-12,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        weights = dropout if attention_dropout is None else attention_dropout
        self.position_embedding = nn.Embedding(max_length, dim)
        self.input_norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, inner_dim, dropout, weights, norm, activation, layer_norm_eps)
            for _ in range(num_layers)
        )
        self.output_norm = nn.LayerNorm(dim, eps=layer_norm_eps) if norm == "pre" else nn.Identity()
        self.apply(lambda module: initialize(module, init_std))

    def forward(self, x: Tensor, positions: Tensor, last_only: bool = False, lengths: Tensor | None = None) -> Tensor:
        """Encode histories.

        Args:
            x: (B, L, D) item vectors, padded on the right.
            positions: (P,) flat indices into the B x L grid.
            last_only: every row has exactly one position, its last; the last block then computes nothing else.
            lengths: (B,) vectors per row, all of which every position of the row sees; None: what came before it.

        Returns:
            (P, D) states at `positions`.
        """
        batch, length, dim = x.shape
        x = self.dropout(self.input_norm(x + self.position_embedding.weight[:length]))
        visible = None
        if lengths is not None:
            visible = (torch.arange(length, device=x.device) < lengths[:, None])[:, None, None, :]  # (B, 1, 1, L)
        for block in self.blocks[:-1]:
            x = block(x, visible)
        last = cast(TransformerBlock, self.blocks[-1])
        # Training a causal row keeps the full block, whose attention has the fast dropout.
        if last_only and (visible is not None or not self.training) and positions.numel() == batch:
            rows = torch.arange(batch, device=x.device)
            states = last.at(x, rows, positions - rows * length)
        else:
            full = last(x, visible).reshape(batch * length, dim)
            states = full if positions.numel() == batch * length else full[positions]
        result: Tensor = self.output_norm(states)
        return result


def share_layers(encoder: TransformerEncoder, owners: Sequence[tuple[int, int]]) -> None:
    """Let blocks use the attention and the two-layer network of others; their layer norms stay their own.

    Args:
        encoder: changed in place.
        owners: for each block the numbers, from 0, of the blocks whose attention and whose network it uses.
    """
    blocks = [cast(TransformerBlock, block) for block in encoder.blocks]
    for block, (first, second) in zip(blocks, owners, strict=True):
        block.attention = blocks[first].attention
        block.expand, block.contract = blocks[second].expand, blocks[second].contract


class EncoderSizes(BaseModel):
    """Arguments that every model with a `TransformerEncoder` takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="width of item vectors and states")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    dropout: float = Field(0.2, ge=0, lt=1)
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(2, ge=1, description="attention heads, a divisor of dim")
    inner_dim: int = Field(256, ge=1, description="width inside the two-layer network of a block")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        check_heads(self.dim, self.num_heads)
        return self

    def encoder_arguments(self) -> dict[str, Any]:
        """Those of its fields that `TransformerEncoder` takes."""
        return self.model_dump(include=set(inspect.signature(TransformerEncoder).parameters))

    def encoder(self, **changes: Any) -> TransformerEncoder:
        """The encoder of these arguments, some of them changed."""
        return TransformerEncoder(**self.encoder_arguments() | changes)


class EncoderConfig(EncoderSizes):
    """The same, and what can be chosen besides."""

    attention_dropout: float | None = Field(None, ge=0, lt=1, description="the same as dropout when null")
    norm: Norm = "post"
    activation: Literal["gelu", "relu", "silu"] = "gelu"


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError where the heads cannot share the width evenly."""
    if dim % num_heads:
        raise ValueError(f"dim must be a multiple of num_heads, got dim={dim}, num_heads={num_heads}")


def initialize(module: nn.Module, std: float) -> None:
    """RecBole's start: weights N(0, std), biases 0, layer norms 1 and 0."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
