"""BERT4Rec: a history read both ways, trained by guessing masked items (Sun et al. 2019)."""

from __future__ import annotations

from typing import ClassVar, Final, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from components.compression.sharing import Sharing
from components.data.batching import Batch
from components.layers.embedding import ItemEmbedding
from components.layers.recompute import recomputed
from components.layers.transformer import EncoderConfig, gelu, initialize
from components.model import Catalog, ItemTensor, OutputHead, Ranker
from components.schema import PAD
from components.students.heads import BiasedHead
from components.students.sequential import (
    BLOCK_SHARINGS,
    CompressibleConfig,
    compressed_head,
    make_item_embedding,
    plain_table,
    shared_encoder,
)

# Items, padding included, that one pass over prefixes encodes: few enough for a CPU's cache, enough for a GPU.
TOKENS: Final = {"cpu": 2**13, "cuda": 2**17}


class BERT4RecConfig(EncoderConfig, CompressibleConfig):
    """Arguments of BERT4Rec."""

    sharings: ClassVar[tuple[Sharing, ...]] = BLOCK_SHARINGS

    max_length: int = Field(50, ge=2, description="items of a history that the model sees, the mask included")
    mask_probability: float = Field(0.2, ge=0, lt=1, description="share of the items that training hides")
    mask_last: bool = Field(
        True, description="train on a copy of each window too in which the last item alone is hidden"
    )


class MaskableEmbedding(nn.Module):
    """Item vectors, and one more vector for MASK = N + 1, which thus is no item and is never ranked.

    Args:
        items: any `ItemEmbedding` that is a module.
    """

    def __init__(self, items: nn.Module, init_std: float = 0.02) -> None:
        super().__init__()
        self.items = items
        self.mask = nn.Parameter(init_std * torch.randn(self.known.dim))

    @property
    def known(self) -> ItemEmbedding:
        """The item embedding as what it offers."""
        return cast(ItemEmbedding, self.items)

    @property
    def mask_item(self) -> int:
        """N + 1."""
        return self.known.num_items + 1

    def forward(self, items: Tensor) -> Tensor:
        """(...) numbers of items, PAD and MASK -> (..., D)."""
        hidden = items == self.mask_item
        return torch.where(hidden[..., None], self.mask, self.items(items.masked_fill(hidden, PAD)))


class OutputLayer(nn.Module):
    """``LN(gelu(W h + b))``, applied to the states that are compared with items."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim, eps=1e-12)
        initialize(self.project, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(P, D) -> (P, D)."""
        result: Tensor = self.norm(gelu(self.project(x)))
        return result


class BERT4Rec(Ranker):
    """A history and a MASK behind it -> the state at MASK; it keeps the last ``max_length - 1`` items.

    It learns from whole windows, the item after the last input included: at random items that are hidden (cloze), and
    at the last item of a copy in which that alone is hidden, which is what it will be asked.

    It is not causal: what `states` gives costs one sequence per position, some 25 times as much as the windows
    themselves where they are 50 long. Distillation asks for that, since teachers speak of every position: a distilled
    BERT4Rec learns to guess the last item of every prefix instead of hidden items within windows. Prefixes of a like
    length are encoded together; where they take more than one pass, all but the states is computed again in the
    backward pass, so that memory does not grow with the number of prefixes.

    Args:
        item_embedding: the item vectors and that of MASK.
        network: a `TransformerEncoder` or what is called like it, with ``max_length + 1`` positions: a window may hold
            ``max_length`` inputs and the item after them.
        output: (P, D) -> (P, D), from the network's states to those that `head` compares with items.
        head: turns states into scores.
        max_length: L.
        mask_probability: share of the items that training hides.
        mask_last: whether training adds the copy with the last item hidden.
    """

    causal = False

    def __init__(
        self,
        item_embedding: MaskableEmbedding,
        network: nn.Module,
        output: nn.Module,
        head: OutputHead,
        max_length: int,
        mask_probability: float = 0.2,
        mask_last: bool = True,
    ) -> None:
        super().__init__()
        self.item_embedding, self.network, self.output, self.head = item_embedding, network, output, head
        self.num_items, self.max_length = item_embedding.known.num_items, max_length
        self.mask_probability, self.mask_last = mask_probability, mask_last

    def states(self, batch: Batch) -> Tensor:
        """(P, D) states at a MASK behind the history up to each predicted position."""
        return self._after(batch, batch.positions)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy over all hidden items of the batch; 0 where chance hid none and `mask_last` is off.

        Which items are hidden comes from torch's global generator.
        """
        items, last = windows(batch)
        masked = hide(items, self.mask_probability)
        states, targets = [self._cloze(items, masked)], [items[masked]]
        if self.mask_last:
            states.append(self._after(batch, batch.positions[last]))
            targets.append(batch.targets[last])
        return self.head.loss(torch.cat(states), torch.cat(targets))

    def item_tensors(self) -> list[ItemTensor]:
        """The item embedding and the items' biases; the vector of MASK is apart and needs no place among the items."""
        tables = plain_table("item_embedding.items", self.item_embedding.items, self.head)
        if tables and isinstance(self.head, BiasedHead):
            tables.append(ItemTensor("head.bias", self.head.bias, biases=1))
        return tables

    def _cloze(self, items: Tensor, masked: Tensor) -> Tensor:
        """(B, W) items and which of them to hide -> (M, D) states at the hidden ones."""
        hidden = items.masked_fill(masked, self.item_embedding.mask_item)
        lengths = (items != PAD).sum(dim=1)
        return self._encode(hidden, masked.flatten().nonzero()[:, 0], False, lengths)

    def _after(self, batch: Batch, positions: Tensor) -> Tensor:
        """(P, D) states at a MASK behind the history up to each of the flat `positions`."""
        items, lengths = masked_prefixes(batch, positions, self.max_length, self.item_embedding.mask_item)
        groups = alike(lengths, TOKENS.get(lengths.device.type, TOKENS["cuda"]))
        if len(groups) < 2:
            return self._at_mask(items, lengths)
        order = torch.cat(groups).argsort()
        used = [*self.item_embedding.parameters(), *self.network.parameters(), *self.output.parameters()]
        return torch.cat([recomputed(self._at_mask, used, items[rows], lengths[rows]) for rows in groups])[order]

    def _at_mask(self, items: Tensor, lengths: Tensor) -> Tensor:
        """(P, K) items that end in MASK, PAD behind -> (P, D)."""
        items = items[:, : int(lengths.max()) if len(lengths) else 1]
        positions = torch.arange(len(items), device=items.device) * items.shape[1] + lengths - 1
        return self._encode(items, positions, True, lengths)

    def _encode(self, items: Tensor, positions: Tensor, last_only: bool, lengths: Tensor) -> Tensor:
        states: Tensor = self.output(self.network(self.item_embedding(items), positions, last_only, lengths))
        return states


def windows(batch: Batch) -> tuple[Tensor, Tensor]:
    """The rows of a training batch as whole windows, each row's last target behind its inputs.

    Returns:
        (B, L + 1) items, PAD behind, and (B,) which of the batch's predicted positions is the last of each row.

    >>> from dataclasses import replace
    >>> from components.data.batching import history_batch
    >>> batch = replace(history_batch([[3, 5], [2]], 9), targets=torch.tensor([7, 4]))
    >>> [part.tolist() for part in windows(batch)]
    [[[3, 5, 7], [2, 4, 0]], [0, 1]]
    """
    ends = torch.arange(1, len(batch) + 1, device=batch.items.device) * batch.items.shape[1]
    last = torch.searchsorted(batch.positions, ends) - 1
    lengths = (batch.items != PAD).sum(dim=1, keepdim=True)  # 0 for an empty history
    return nn.functional.pad(batch.items, (0, 1)).scatter(1, lengths, batch.targets[last, None]), last


def hide(items: Tensor, probability: float) -> Tensor:
    """(B, L) items -> which of them to hide, each with `probability`; never PAD."""
    return (torch.rand(items.shape, device=items.device) < probability) & (items != PAD)


def masked_prefixes(batch: Batch, positions: Tensor, max_length: int, mask_item: int) -> tuple[Tensor, Tensor]:
    """The history up to each of the flat `positions`, cut to its last ``max_length - 1`` items, and MASK behind it.

    Returns:
        (P, K) items, PAD behind, and (P,) lengths with MASK.

    >>> from components.data.batching import history_batch
    >>> batch = history_batch([[3, 5, 7], [2], []], 9)
    >>> [part.tolist() for part in masked_prefixes(batch, batch.positions, 3, 9)]
    [[[5, 7, 9], [2, 9, 0], [9, 0, 0]], [3, 2, 1]]
    """
    length = batch.items.shape[1]
    last = positions % length
    rows = torch.div(positions, length, rounding_mode="floor")
    seen = last + 1 - (batch.items.flatten()[positions] == PAD).long()  # an empty history is one PAD
    kept = seen.clamp_max(max_length - 1)
    steps = torch.arange(min(length, max_length - 1) + 1, device=batch.items.device)
    columns = ((seen - kept)[:, None] + steps).clamp_max(length - 1)  # (P, K)
    items = batch.items[rows[:, None], columns].masked_fill(steps > kept[:, None], PAD)
    return items.scatter(1, kept[:, None], mask_item), kept + 1


def alike(lengths: Tensor, tokens: int) -> list[Tensor]:
    """Row numbers in groups, shortest first, of at most `tokens` items with padding (but at least one row).

    >>> [group.tolist() for group in alike(torch.tensor([4, 1, 2]), tokens=4)]
    [[1, 2], [0]]
    """
    ordered, order = lengths.sort(stable=True)
    sizes, groups, begin = ordered.tolist(), [], 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or sizes[end] * (end - begin + 1) > tokens:
            groups.append(order[begin:end])
            begin = end
    return groups


def learnt_items(model: Ranker) -> ItemEmbedding:
    """The item vectors, without that of MASK."""
    return cast(BERT4Rec, model).item_embedding.known


def build(catalog: Catalog, config: BERT4RecConfig) -> BERT4Rec:
    """Build a BERT4Rec with item vectors that are tied unless it is compressed."""
    item_embedding = make_item_embedding(catalog, config)
    network = shared_encoder(config.encoder(max_length=config.max_length + 1), config)
    return BERT4Rec(
        MaskableEmbedding(item_embedding),
        network,
        OutputLayer(config.dim),
        compressed_head(catalog, config, item_embedding) or BiasedHead(item_embedding),
        config.max_length,
        config.mask_probability,
        config.mask_last,
    )
