"""Recformer's pre-training: a history should be close to its next item, and hidden words should be found (section 3.2).

Where several workers train together, each contrasts within its own share of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.batching import Batch
from components.errors import ConfigError
from components.features.text import token_batches
from components.teachers.recformer.backbone import Architecture
from components.teachers.recformer.model import Recformer, prefixes
from components.teachers.recformer.tokens import TokenBatch

MOST_MASKED: Final = 512  # tokens of a sequence
HIDDEN_SHARE: Final = 0.8  # of the chosen tokens become MASK
RANDOM_SHARE: Final = 0.1  # become any token; the rest stay as they are


class MaskedWordHead(nn.Module):
    """Hidden states -> scores of all tokens, by the word embeddings themselves."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.hidden, shape.hidden)
        self.norm = nn.LayerNorm(shape.hidden, eps=shape.epsilon)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """(M, d) states and (V, d) word embeddings -> (M, V)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), words, self.bias)


def choose_words(tokens: TokenBatch, share: float) -> Tensor:
    """(B, T) which tokens are to be found: whole words at random until `share` of each row's tokens is reached.

    At least one word of a row that has any, and at most 512 tokens begin a chosen word.
    """
    real = tokens.words >= 0
    starts = real & (tokens.words != F.pad(tokens.words, (1, 0), value=-1)[:, :-1])
    number = (starts.cumsum(dim=1) - 1).clamp_min(0)  # (B, T) words counted from 0
    draws = torch.rand(real.shape, device=real.device).gather(1, number).masked_fill(~real, 2.0)
    order = draws.argsort(dim=1, stable=True)  # tokens of one word stay together, padding comes last
    place = order.argsort(dim=1)
    begin = place.new_full(place.shape, place.shape[1]).scatter_reduce(1, number, place, "amin").gather(1, number)
    wanted = (real.sum(dim=1, keepdim=True) * share).round().clamp(1, MOST_MASKED)
    return real & (begin < wanted)


def hide_tokens(tokens: TokenBatch, chosen: Tensor, mask_id: int, vocabulary: int) -> TokenBatch:
    """The batch as the model sees it: of the `chosen` (B, T) tokens 80 % are MASK, 10 % any token, 10 % themselves."""
    draws = torch.rand(chosen.shape, device=chosen.device)
    any_token = torch.randint(vocabulary, chosen.shape, device=chosen.device)
    ids = torch.where(chosen & (draws < HIDDEN_SHARE + RANDOM_SHARE), any_token, tokens.ids)
    return replace(tokens, ids=ids.masked_fill(chosen & (draws < HIDDEN_SHARE), mask_id))


class Pretraining(nn.Module):
    """The loss of a batch: contrast of histories and next items, and masked words of both.

    ``L = -mean_i log softmax_j(cos(history_i, item_j) / T)_i + w (MLM(histories) + MLM(items))``; two histories with
    the same next item compete like all others.

    Args:
        model: the Recformer over the items of all domains.
        mlm_weight: w; 0 leaves both masked losses, and their head, out.
        mlm_share: share of the tokens that are to be found.

    Raises:
        ConfigError: masked words are wanted, and the language model has no token that hides another.
    """

    def __init__(self, model: Recformer, mlm_weight: float = 0.1, mlm_share: float = 0.15) -> None:
        super().__init__()
        self.model, self.mlm_weight, self.mlm_share = model, mlm_weight, mlm_share
        shape = model.backbone.shape
        if mlm_weight > 0 and shape.mask_id < 0:
            raise ConfigError("the backbone's tokenizer has no MASK token; set pretrain.contrastive.mlm_weight to 0")
        self.head = MaskedWordHead(shape) if mlm_weight > 0 else None

    def forward(self, batch: Batch) -> Tensor:
        """Scalar loss of `batch`, one target per row."""
        histories, items = prefixes(batch, self.model.max_length), batch.targets[:, None]
        logits = self.model.encode(histories) @ self.model.encode(items).t() / self.model.temperature
        loss = F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
        if self.head is not None:
            loss = loss + self.mlm_weight * (self.masked_loss(histories) + self.masked_loss(items))
        return loss

    def masked_loss(self, histories: Tensor) -> Tensor:
        """(P, K) item numbers, newest first -> mean cross-entropy over all chosen tokens, in nats; 0 where none is."""
        assert self.head is not None
        model, backbone = self.model, self.model.backbone
        total, count = histories.new_zeros((), dtype=torch.float32), 0
        for rows in token_batches(model.tokens.lengths(histories).cpu().numpy(), model.settings.batch_tokens):
            tokens = model.tokens(histories[torch.from_numpy(rows).to(histories.device)])
            chosen = choose_words(tokens, self.mlm_share)
            hidden = backbone(hide_tokens(tokens, chosen, backbone.shape.mask_id, backbone.shape.vocabulary))
            logits = self.head(hidden[chosen], backbone.embeddings.words.weight)
            total = total + F.cross_entropy(logits.float(), tokens.ids[chosen], reduction="sum")
            count += len(logits)
        return total / max(count, 1)


def merge_attributes(catalogs: Sequence[tuple[int, Mapping[str, Sequence[str]]]]) -> dict[str, list[str]]:
    """Attributes of several catalogs below each other; an item has ``""`` where its own catalog lacks a name.

    Args:
        catalogs: number of items and attributes of each.

    >>> merge_attributes([(1, {"title": ["red"]}), (2, {"name": ["hat", "sock"], "title": ["a", "b"]})])
    {'title': ['red', 'a', 'b'], 'name': ['', 'hat', 'sock']}
    """
    names = dict.fromkeys(chain.from_iterable(attributes for _, attributes in catalogs))
    return {
        name: list(chain.from_iterable(attributes.get(name, [""] * items) for items, attributes in catalogs))
        for name in names
    }
