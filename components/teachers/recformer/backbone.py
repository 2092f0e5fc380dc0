"""The language model under Recformer: a BERT or a Longformer with item positions and attention in a window."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.features.text import PrecisionChoice, resolve_precision_name
from components.layers.dropout import Dropout
from components.layers.recompute import recomputed
from components.teachers.recformer.tokens import NUM_TYPES, TokenBatch

AttentionKind = Literal["dense", "longformer"]
EXCLUDED = -10000.0  # Longformer's own marks in its attention mask
GLOBAL = 10000.0


@dataclass(frozen=True)
class Architecture:
    """All that decides the shape of a backbone; saved with the weights, so that loading asks no language model.

    Attributes:
        hidden: width d.
        num_layers: layers.
        num_heads: heads of a layer.
        inner: width inside a layer's two-layer network.
        vocabulary: number of tokens.
        epsilon: of the layer norms.
        pad_id: token of padding; position numbers begin at ``pad_id + 1``, as in RoBERTa.
        cls_id: token that begins a sequence.
        mask_id: token that hides another in masked language modeling; -1 where there is none.
        max_tokens: longest sequence.
        max_items: most items of a history.
        window: width of the attention window, both sides together.
        attention: "dense" with an explicit mask, or "longformer" in sliding chunks.
    """

    hidden: int = 8
    num_layers: int = 1
    num_heads: int = 1
    inner: int = 8
    vocabulary: int = 8
    epsilon: float = 1e-12
    pad_id: int = 0
    cls_id: int = 1
    mask_id: int = -1
    max_tokens: int = 8
    max_items: int = 1
    window: int = 64
    attention: AttentionKind = "dense"

    @property
    def num_positions(self) -> int:
        """Rows of the position table."""
        return self.max_tokens + 1 + self.pad_id

    def to_tensor(self) -> Tensor:
        """As the bytes of a JSON text."""
        return torch.tensor(list(json.dumps(asdict(self), sort_keys=True).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Architecture:
        """What `to_tensor` wrote."""
        return cls(**json.loads(bytes(tensor.tolist())))


def window_mask(length: int, window: int, device: torch.device | str = "cpu") -> Tensor:
    """(T, T) which keys (columns) each query (row) may see: its window, and CLS; CLS sees all.

    >>> window_mask(4, 2).int().tolist()
    [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 1, 1]]
    """
    place = torch.arange(length, device=device)
    near = (place[:, None] - place[None, :]).abs() <= window // 2
    near[0] = near[:, 0] = True
    return near


class Embeddings(nn.Module):
    """``dropout(norm(word + position + token type + item position))`` (Recformer, Eq. 4)."""

    def __init__(self, shape: Architecture, dropout: float) -> None:
        super().__init__()
        self.pad_id = shape.pad_id
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.num_positions, shape.hidden)
        self.types = nn.Embedding(NUM_TYPES, shape.hidden)
        self.items = nn.Embedding(shape.max_items + 1, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.dropout = Dropout(dropout)
        for table in (self.words, self.positions, self.types, self.items):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """(B, T) tokens -> (B, T, d)."""
        numbers = torch.arange(tokens.ids.shape[1], device=tokens.ids.device) + self.pad_id + 1
        places = torch.where(tokens.mask, numbers, self.pad_id)  # (B, T)
        total = self.words(tokens.ids) + self.positions(places) + self.types(tokens.types) + self.items(tokens.items)
        embedded: Tensor = self.dropout(self.norm(total))
        return embedded


class DenseAttention(nn.Module):
    """Scaled dot-product attention under an explicit mask.

    Equal to Longformer's, except that CLS has no projections of its own.
    """

    def __init__(self, shape: Architecture, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = shape.num_heads, dropout
        self.query, self.key, self.value = (nn.Linear(shape.hidden, shape.hidden) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor]:
        """(B, T, d) and (B, 1, T, T) which keys a query may see -> (B, T, d), in a tuple as Longformer's."""
        query, key, value = (
            part(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )  # (B, H, T, d / H)
        rate = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate)
        return (attended.transpose(1, 2).flatten(2),)


class Layer(nn.Module):
    """One layer of BERT, its attention from outside."""

    def __init__(self, shape: Architecture, attention: nn.Module, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.projection = nn.Linear(shape.hidden, shape.hidden)
        self.attention_norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.inner = nn.Linear(shape.hidden, shape.inner)
        self.outer = nn.Linear(shape.inner, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, *masks: Tensor | bool) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        attended = self.attention(x, *masks)[0]
        x = self.attention_norm(x + self.dropout(self.projection(attended)))
        changed: Tensor = self.norm(x + self.dropout(self.outer(F.gelu(self.inner(x)))))
        return changed


class Backbone(nn.Module):
    """Token sequences -> hidden states.

    Args:
        shape: its architecture.
        dropout: rate on embeddings and on what each layer adds.
        attention_dropout: rate on attention weights.
        gradient_checkpointing: keep only the input of each layer and compute the rest again in the backward pass.
        precision: of products, in training and after it; bf16 is autocast, and weights stay fp32.
    """

    def __init__(
        self,
        shape: Architecture,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        gradient_checkpointing: bool = False,
        precision: PrecisionChoice = "fp32",
    ) -> None:
        super().__init__()
        self.shape, self.gradient_checkpointing, self.precision = shape, gradient_checkpointing, precision
        self.embeddings = Embeddings(shape, dropout)
        self.layers = nn.ModuleList(
            Layer(shape, _attention(shape, attention_dropout), dropout) for _ in range(shape.num_layers)
        )

    def forward(self, tokens: TokenBatch) -> Tensor:
        """(B, T) tokens -> (B, T, d) in fp32."""
        device = tokens.ids.device.type
        with torch.autocast(device, torch.bfloat16, resolve_precision_name(self.precision, device) == "bf16"):
            return self._states(tokens).float()

    def _states(self, tokens: TokenBatch) -> Tensor:
        length = tokens.ids.shape[1]
        hidden = self.embeddings(tokens)
        masks: tuple[Tensor | bool, ...]
        if self.shape.attention == "dense":
            masks = (window_mask(length, self.shape.window, hidden.device) & tokens.mask[:, None, None, :],)
        else:
            missing = -length % self.shape.window
            hidden = F.pad(hidden, (0, 0, 0, missing))
            real = F.pad(tokens.mask, (0, missing))
            is_global = F.pad(tokens.is_global, (0, missing))
            marks = hidden.new_zeros(real.shape).masked_fill(~real, EXCLUDED).masked_fill(is_global, GLOBAL)
            masks = (marks, ~real, is_global, True)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                hidden = recomputed(partial(_through, layer, masks), layer.parameters(), hidden)
            else:
                hidden = layer(hidden, *masks)
        trimmed: Tensor = hidden[:, :length]
        return trimmed


def _through(layer: nn.Module, masks: tuple[Tensor | bool, ...], hidden: Tensor) -> Tensor:
    result: Tensor = layer(hidden, *masks)
    return result


def _attention(shape: Architecture, dropout: float) -> nn.Module:
    if shape.attention == "dense":
        return DenseAttention(shape, dropout)
    from transformers import LongformerConfig  # here: importing takes seconds
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config: Any = LongformerConfig(
        hidden_size=shape.hidden,
        num_attention_heads=shape.num_heads,
        attention_probs_dropout_prob=dropout,
        attention_window=[shape.window],
    )
    attention: nn.Module = LongformerSelfAttention(config, layer_id=0)  # type: ignore[no-untyped-call]
    return attention


def add_lora(backbone: Backbone, rank: int, alpha: float) -> None:
    """Freeze `backbone` and add trainable low-rank changes to its queries and values (Hu et al. 2022).

    Token types and item positions, which no language model was trained with, stay trainable too.
    """
    from peft import LoraConfig, inject_adapter_in_model  # here: only who uses it pays for the import

    names = ["query", "value", *(["query_global", "value_global"] if backbone.shape.attention == "longformer" else [])]
    backbone.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=names), backbone)  # type: ignore[arg-type]
    for table in (backbone.embeddings.types, backbone.embeddings.items):
        table.requires_grad_(True)
