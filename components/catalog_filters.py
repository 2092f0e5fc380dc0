"""Which items an answer may hold: filters by item attributes and item ids, as masks over the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.errors import DataError, UnknownNameError
from components.schema import ITEM

Mask = NDArray[np.bool_]
Values = tuple[tuple[str, tuple[str, ...]], ...]  # (attribute, values)
CACHED: Final = 64  # masks that are kept, one byte per item each


@dataclass(frozen=True)
class Filter:
    """What items must have to be recommended. It can be hashed, so that its mask is made once.

    Attributes:
        allow: an item needs at least one of the values of every attribute.
        deny: an item has none of the values of any attribute.
        allow_items: only these ids, None for all.
        deny_items: none of these ids.
    """

    allow: Values = ()
    deny: Values = ()
    allow_items: tuple[str, ...] | None = None
    deny_items: tuple[str, ...] = ()

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes that it reads."""
        return list(dict.fromkeys(name for name, _ in (*self.allow, *self.deny)))

    def without_values(self) -> Filter:
        """The same attributes with nothing wanted of them: small enough to be kept."""
        return Filter(allow=tuple((name, ()) for name in self.attributes))

    @classmethod
    def of(
        cls,
        allow: Mapping[str, Sequence[str]] | None = None,
        deny: Mapping[str, Sequence[str]] | None = None,
        allow_items: Sequence[str] | None = None,
        deny_items: Sequence[str] = (),
    ) -> Filter:
        """A filter from plain mappings and lists."""
        ids = None if allow_items is None else tuple(allow_items)
        return cls(_frozen(allow or {}), _frozen(deny or {}), ids, tuple(deny_items))


def _frozen(values: Mapping[str, Sequence[str]]) -> Values:
    return tuple((name, tuple(wanted)) for name, wanted in sorted(values.items()))


class ItemAttributes:
    """The attributes of all items, and which items have a value. An attribute is indexed when it is first asked for.

    Args:
        table: a column of lists of texts per attribute, row ``i`` of item ``i + 1``.
    """

    def __init__(self, table: pl.DataFrame) -> None:
        self._table = table
        self._index = lru_cache(maxsize=None)(self._indexed)

    @property
    def names(self) -> list[str]:
        """The attributes."""
        return self._table.columns

    def of(self, number: int) -> dict[str, list[str]]:
        """The values of item `number` by attribute; without those of which it has none."""
        if not self.names or not 1 <= number <= self._table.height:
            return {}
        row = self._table.row(number - 1, named=True)
        return {name: list(values) for name, values in row.items() if values}

    def check(self, name: str) -> None:
        """Say which attributes there are, where `name` is none.

        Raises:
            UnknownNameError: there are others.
            DataError: there are none at all.
        """
        if not self.names:
            raise DataError("this artifact carries no item attributes to filter by; export the run again")
        if name not in self.names:
            raise UnknownNameError("item attribute", name, self.names)

    def items_with(self, name: str, value: str) -> NDArray[np.int32]:
        """Numbers of the items that have this value; none for a value that no item has.

        Raises:
            UserError: no such attribute, see `check`.
        """
        self.check(name)
        items, places = self._index(name)
        begin, end = places.get(value, (0, 0))
        return items[begin:end]

    def _indexed(self, name: str) -> tuple[NDArray[np.int32], dict[str, tuple[int, int]]]:
        """Item numbers, those of one value beside each other, and where each value's begin and end."""
        numbers = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias(ITEM)
        rows = self._table.select(numbers, pl.col(name).alias("value")).explode("value").drop_nulls()
        found = rows.group_by("value").agg(ITEM)
        ends = np.cumsum(found[ITEM].list.len().to_numpy(), dtype=np.int64)
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        places = zip(begins.tolist(), ends.tolist(), strict=False)  # without values there is one begin and no end
        return found[ITEM].explode(empty_as_null=False).to_numpy(), dict(zip(found["value"], places, strict=True))


class CatalogFilters:
    """Filters as masks over the items of a catalogue; the last ones are kept.

    Args:
        attributes: of the items.
        numbers: item number by id.
    """

    def __init__(self, attributes: ItemAttributes, numbers: Mapping[str, int]) -> None:
        self.attributes, self._numbers = attributes, numbers
        self.mask = lru_cache(maxsize=CACHED)(self._mask)

    def _mask(self, wanted: Filter) -> Mask:
        """(N + 1,) whether an item passes, by number; PAD never does. It is shared: not to be written to.

        Raises:
            UserError: an attribute is unknown.
        """
        passing = np.ones(len(self._numbers) + 1, dtype=np.bool_)
        for name, values in wanted.allow:
            passing &= self._any_of(name, values)
        for name, values in wanted.deny:
            passing &= ~self._any_of(name, values)
        if wanted.allow_items is not None:
            passing &= self._these(wanted.allow_items)
        passing &= ~self._these(wanted.deny_items)
        passing[0] = False
        passing.setflags(write=False)
        return passing

    def _any_of(self, name: str, values: Sequence[str]) -> Mask:
        self.attributes.check(name)
        found = np.zeros(len(self._numbers) + 1, dtype=np.bool_)
        for value in values:
            found[self.attributes.items_with(name, value)] = True
        return found

    def _these(self, ids: Sequence[str]) -> Mask:
        found = np.zeros(len(self._numbers) + 1, dtype=np.bool_)
        found[[self._numbers[item_id] for item_id in ids if item_id in self._numbers]] = True
        return found
