"""Items as tokens: ``key value`` attributes, cut and flat in memory, and histories put together from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.errors import ConfigError

CLS_TYPE: Final = 0
NAME_TYPE: Final = 1  # tokens of an attribute's name
VALUE_TYPE: Final = 2
PAD_TYPE: Final = 3
NUM_TYPES: Final = 4
CHARACTERS_PER_TOKEN: Final = 128  # longer values are cut before the tokenizer, which would read all of 100 kB
TEXTS_AT_ONCE: Final = 4096
MAX_WORDS: Final = 1 << 20  # words of an item; words of a history are numbered item by item in steps of this


@dataclass(frozen=True)
class TokenBatch:
    """Token sequences ``[CLS] newest item, ..., oldest item``, padded on the right.

    Attributes:
        ids: (B, T) tokens.
        types: (B, T) 0 CLS, 1 name, 2 value, 3 padding.
        items: (B, T) item positions: 0 for CLS, k for the k-th most recent item; padding shares the last one.
        words: (B, T) number of the word, -1 for CLS and padding; ascending within a row.
        mask: (B, T) True for tokens, False for padding.
    """

    ids: Tensor
    types: Tensor
    items: Tensor
    words: Tensor
    mask: Tensor

    @property
    def is_global(self) -> Tensor:
        """(B, T) which tokens attend to all and are attended to by all: CLS."""
        return (self.types == CLS_TYPE) & self.mask


@dataclass(frozen=True)
class TokenTable:
    """The tokens of all items, item after item.

    Attributes:
        offsets: (N + 2,) item ``i`` owns the tokens ``offsets[i]:offsets[i + 1]``; PAD (0) owns none.
        ids: (M,) tokens.
        types: (M,) 1 name, 2 value.
        words: (M,) number of the word within its item.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    words: NDArray[np.int32]

    @classmethod
    def empty(cls, num_items: int) -> TokenTable:
        """Items without tokens: the shape of a model that is about to be loaded."""
        nothing = np.zeros(0, np.int32)
        return cls(np.zeros(num_items + 2, np.int64), nothing, nothing.astype(np.uint8), nothing)


def tokenize_items(
    attributes: Mapping[str, Sequence[str]], tokenizer: Any, num_attributes: int = 3, attribute_tokens: int = 32
) -> TokenTable:
    """Tokens of every item (Recformer, section 2.1).

    An attribute is its name and its value, together cut to `attribute_tokens`. An item has its first `num_attributes`
    attributes that say something; one that has none has no tokens, and its vector is that of CLS alone.

    Args:
        attributes: one text per item, ``""`` where it has none, by attribute name, the most important name first.
        tokenizer: of Hugging Face; a fast one also tells which tokens make one word.
        num_attributes: at most so many of an item.
        attribute_tokens: at most so many of an attribute.

    Raises:
        ConfigError: no item has a text.
    """
    num_items = max((len(texts) for texts in attributes.values()), default=0)
    found: list[list[tuple[list[int], list[int], int]]] = [[] for _ in range(num_items)]  # ids, words, tokens of name
    for name, texts in attributes.items():
        name_ids, name_words = next(_tokens([name], tokenizer, attribute_tokens), ([], []))
        first_word = name_words[-1] + 1 if name_words else 0
        filled = [item for item, text in enumerate(texts) if text and len(found[item]) < num_attributes]
        for item, (ids, words) in zip(
            filled, _tokens([texts[item] for item in filled], tokenizer, attribute_tokens), strict=True
        ):
            if ids:
                joined = name_words + [first_word + word for word in words]
                found[item].append(((name_ids + ids)[:attribute_tokens], joined[:attribute_tokens], len(name_ids)))
    if not any(found):
        raise ConfigError(
            "recformer needs item texts, and no item has one; set input.items and input.text_columns "
            f"(columns that were read: {', '.join(attributes) or 'none'})"
        )
    return _flat(found)


def _flat(items: list[list[tuple[list[int], list[int], int]]]) -> TokenTable:
    ids: list[int] = []
    types: list[int] = []
    words: list[int] = []
    offsets = [0, 0]
    for attributes in items:
        first_word = 0
        for tokens, numbers, name in attributes:
            ids += tokens
            types += [NAME_TYPE] * min(name, len(tokens)) + [VALUE_TYPE] * (len(tokens) - name)
            words += [first_word + number for number in numbers]
            first_word = words[-1] + 1
        offsets.append(len(ids))
    return TokenTable(
        np.array(offsets, np.int64), np.array(ids, np.int32), np.array(types, np.uint8), np.array(words, np.int32)
    )


def _tokens(texts: Sequence[str], tokenizer: Any, limit: int) -> Iterator[tuple[list[int], list[int]]]:
    """(tokens, number of each token's word) of each text, at most `limit`; special tokens in a text are plain text."""
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        cut = [" ".join(text.split())[: limit * CHARACTERS_PER_TOKEN] for text in texts[begin : begin + TEXTS_AT_ONCE]]
        encoded = tokenizer(cut, add_special_tokens=False, truncation=True, max_length=limit, split_special_tokens=True)
        for row, ids in enumerate(encoded["input_ids"]):
            words = encoded.word_ids(row) if encoded.is_fast else range(len(ids))
            yield list(ids), [word or 0 for word in words]


class ItemTokens(nn.Module):
    """The token table as buffers, so that a saved model brings its catalog along; puts histories together.

    Args:
        table: tokens of all items.
        cls_id: token that begins every sequence.
        pad_id: token of padding.
        max_tokens: longest sequence, CLS included; older items are cut.
        max_items: most items of a history.
    """

    offsets: Tensor
    ids: Tensor
    types: Tensor
    words: Tensor

    def __init__(self, table: TokenTable, cls_id: int, pad_id: int, max_tokens: int, max_items: int) -> None:
        super().__init__()
        self.cls_id, self.pad_id, self.max_tokens, self.max_items = cls_id, pad_id, max_tokens, max_items
        for name, values in vars(table).items():
            self.register_buffer(name, torch.from_numpy(values))

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.offsets) - 2

    def lengths(self, histories: Tensor) -> Tensor:
        """(B, K) item numbers, newest first, PAD behind -> (B,) tokens of each sequence."""
        sizes = self.offsets[histories + 1] - self.offsets[histories]
        return (1 + sizes.sum(dim=1)).clamp_max(self.max_tokens)

    def forward(self, histories: Tensor) -> TokenBatch:
        """(B, K) item numbers, newest first, PAD behind -> their token sequences, as long as the longest."""
        sizes = self.offsets[histories + 1] - self.offsets[histories]  # (B, K)
        ends = 1 + sizes.cumsum(dim=1)  # column behind each item's last token
        lengths = ends[:, -1].clamp_max(self.max_tokens)
        columns = torch.arange(int(lengths.max()), device=histories.device).expand(len(histories), -1).contiguous()
        mask = columns < lengths[:, None]  # (B, T)
        place = torch.searchsorted(ends, columns, right=True).clamp_max(histories.shape[1] - 1)  # (B, T) 0 = newest
        item = histories.gather(1, place)
        source = self.offsets[item] + columns - (ends - sizes).gather(1, place)
        inside = mask & (columns > 0)
        source = torch.where(inside, source, torch.zeros_like(source))
        first, rest = columns == 0, ~mask
        return TokenBatch(
            ids=self._pick(self.ids, source, first, self.cls_id, rest, self.pad_id),
            types=self._pick(self.types, source, first, CLS_TYPE, rest, PAD_TYPE),
            items=(place + 1).masked_fill(first, 0).masked_fill(rest, self.max_items),
            words=self._pick(self.words, source, first, -1, rest, -1, place * MAX_WORDS),
            mask=mask,
        )

    @staticmethod
    def _pick(
        table: Tensor,
        source: Tensor,
        first: Tensor,
        at_first: int,
        rest: Tensor,
        at_rest: int,
        shift: Tensor | int = 0,
    ) -> Tensor:
        """(B, T) entries of `table`, with other values at CLS and in the padding."""
        values = table[source].long() if len(table) else torch.zeros_like(source)
        return (values + shift).masked_fill(first, at_first).masked_fill(rest, at_rest)

    def distinct(self) -> tuple[Tensor, Tensor]:
        """Items without repeats: (n,) numbers of items that all differ in their tokens, and (N,) each item's row there.

        Copies of an item are then encoded once, and get vectors that are equal to the bit.
        """
        offsets = self.offsets.cpu().numpy()
        ids, types = self.ids.cpu().numpy(), self.types.cpu().numpy()
        rows: dict[tuple[bytes, bytes], int] = {}
        kept: list[int] = []
        inverse = np.empty(self.num_items, np.int64)
        for item in range(1, self.num_items + 1):
            own = slice(offsets[item], offsets[item + 1])
            row = rows.setdefault((ids[own].tobytes(), types[own].tobytes()), len(rows))
            if row == len(kept):
                kept.append(item)
            inverse[item - 1] = row
        return torch.tensor(kept, device=self.ids.device), torch.from_numpy(inverse).to(self.ids.device)
