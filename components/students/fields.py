"""Categorical fields of users and items: texts -> value ids -> a vector and a weight per value."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from components.data.batching import Batch
from components.errors import ConfigError, nearest
from components.layers.embedding import FullEmbedding
from components.model import Catalog
from components.schema import PAD, UNKNOWN

INIT_STD = 0.01  # of vectors; weights begin at zero (students.md, section 5)


class FieldConfig(BaseModel):
    """Which fields a factorization machine has, and how wide they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=1, description="width of a field's vector")
    max_length: int = Field(50, ge=1, description="items of a history that the model sees")
    use_history: bool = Field(
        True, description="a field of the last items: the mean of their vectors, in a table apart"
    )
    item_fields: list[str] = Field([], description="item attributes, names of input.text_columns")
    user_fields: list[str] = Field([], description="user attributes, columns of input.users")
    min_count: int = Field(2, ge=1, description="a value of fewer items (users) counts as unknown")
    max_values: int = Field(10_000, ge=1, description="most frequent values that a field keeps; the rest are unknown")

    @field_validator("item_fields", "user_fields")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError(f"expected every field once, got {names}")
        return names


def number_values(texts: Iterable[str], min_count: int, max_values: int) -> tuple[list[int], int]:
    """Ids of texts by frequency, and how many ids there are: 1 is the most frequent text, ties in the order of texts.

    Args:
        texts: one per item or user; a whole text is one value.
        min_count: a text that occurs less often is unknown.
        max_values: at most so many ids, so that a column in which every row differs does not become a table as long as
            the catalog.

    Returns:
        One id per text, 0 for empty and unknown ones; the largest id.

    >>> number_values(["red", "blue", "", "blue", "gold"], min_count=1, max_values=2)
    ([0, 1, 0, 1, 2], 2)
    """
    listed = list(texts)
    counts = Counter(listed)
    counts.pop("", None)
    frequent = ((-count, text) for text, count in counts.items() if count >= min_count)
    ranked = heapq.nsmallest(max_values, frequent)  # a column of a million values is never sorted as a whole
    ids = {text: place for place, (_, text) in enumerate(ranked, start=1)}
    return [ids.get(text, UNKNOWN) for text in listed], len(ids)


class ValueTable(FullEmbedding):
    """A vector of width D and a weight per value: (num_values + 1, D + 1), the weight last; row 0 stays zero."""

    def __init__(self, num_values: int, dim: int) -> None:
        super().__init__(num_values, dim + 1, INIT_STD)
        with torch.no_grad():
            self.weight[:, -1].zero_()


class IdField(nn.Module):
    """The field whose value is the item (user) itself.

    Args:
        count: N (U); number 0 is unknown, its vector is zero.
        dim: D.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.table = ValueTable(count, dim)

    def forward(self, numbers: Tensor) -> Tensor:
        """(...) item or user numbers -> (..., D + 1) vector and weight."""
        vectors: Tensor = self.table(numbers)
        return vectors


class AttributeField(nn.Module):
    """A field whose value is an attribute of the item (user).

    The value of every item is a buffer of the model, which thus ranks without the catalog it was built from.

    Args:
        values: one value id per item (user), from number 1 on.
        num_values: the largest of them.
        dim: D.
    """

    def __init__(self, values: Sequence[int], num_values: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor([UNKNOWN, *values], dtype=torch.int32))
        self.values: Tensor
        self.table = ValueTable(num_values, dim)

    def forward(self, numbers: Tensor) -> Tensor:
        """(...) item or user numbers -> (..., D + 1) vector and weight."""
        vectors: Tensor = self.table(self.values[numbers])
        return vectors

    def make_room(self, rows: int) -> None:
        """Get ready to take a saved table of `rows` rows."""
        self.table = ValueTable(rows - 1, self.table.dim - 1)


class Fields(nn.Module):
    """All categorical fields of one side: the id, then attributes.

    Args:
        count: N (U).
        attributes: texts by name, see `chosen_attributes`.
        config: their sizes.
    """

    def __init__(self, count: int, attributes: Mapping[str, Sequence[str]], config: FieldConfig) -> None:
        super().__init__()
        self.count, self.names = count, tuple(attributes)
        self.fields = nn.ModuleList([IdField(count, config.dim)])
        for texts in attributes.values():
            values, num_values = number_values(texts, config.min_count, config.max_values)
            self.fields.append(AttributeField(values, num_values, config.dim))

    def __len__(self) -> int:
        return len(self.fields)

    def forward(self, numbers: Tensor) -> Tensor:
        """(...) numbers -> (..., F, D + 1)."""
        return torch.stack([field(numbers) for field in self.fields], dim=-2)


class UserFields(nn.Module):
    """The fields of the user's side at every predicted position: id, attributes and what the user took so far.

    Args:
        fields: id and attributes.
        history: vectors of the items of a history, apart from those of items that are ranked; None leaves it out.
    """

    def __init__(self, fields: Fields, history: ValueTable | None) -> None:
        super().__init__()
        self.fields, self.history = fields, history

    def __len__(self) -> int:
        return len(self.fields) + (self.history is not None)

    def forward(self, batch: Batch) -> Tensor:
        """(P, F, D + 1)."""
        fields: Tensor = self.fields(batch.users)[batch.rows]
        if self.history is None:
            return fields
        sums = self.history(batch.items).cumsum(dim=1)  # (B, L, D + 1), over each position's past alone
        lengths = (batch.items != PAD).cumsum(dim=1).clamp_min(1)
        means = (sums / lengths[..., None]).flatten(0, 1)[batch.positions]
        return torch.cat([fields, means[:, None]], dim=1)


def chosen_attributes(catalog: Catalog, side: str, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Texts by name of the attributes `names`; none of any value where a saved model is rebuilt.

    Args:
        catalog: the catalog.
        side: "item" or "user".
        names: names of its attributes.

    Raises:
        ConfigError: the catalog lacks one of them.
    """
    known, count, source = (
        (catalog.attributes, catalog.num_items, "input.text_columns")
        if side == "item"
        else (catalog.user_attributes, catalog.num_users, "the file input.users")
    )
    if known is None and catalog.sequences is None:
        return {name: [""] * count for name in names}
    found = known or {}
    for name in names:
        if name not in found:
            raise ConfigError(
                f"{side}_fields: no {side} attribute {name!r}; expected one of {source}: "
                f"{', '.join(found) or 'there is none'}{nearest(name, found)}"
            )
    return {name: found[name] for name in names}
