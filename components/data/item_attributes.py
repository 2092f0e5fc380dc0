"""Columns of the item table -> what a catalogue can be filtered by: for every item the values of each attribute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from components.errors import ConfigError, UnknownNameError
from components.schema import COUNT, IMAGE, ITEM, ITEM_ID, TEXT, TITLE

NO_ATTRIBUTES: Final = (ITEM, ITEM_ID, COUNT, TEXT, TITLE, IMAGE)
WHOLE: Final = ""  # the separator of a column whose text is one value
SEPARATORS: Final = ("|", ";", ",", ", ")  # in the order in which they are looked for
SHARE: Final = 0.2  # of the filled cells that hold a separator: from there on the column holds lists
PROSE: Final = 100  # characters; a column whose texts are longer on average describes, and nobody filters by it


def choose_attributes(items: pl.DataFrame, wanted: Mapping[str, str] | None = None) -> dict[str, str]:
    """Which columns are attributes, and what separates the values in each.

    Args:
        items: the item table, with the user's own columns.
        wanted: attribute -> separator, ``""`` where the whole text is one value; None takes every column of texts,
            whole numbers, truths, or lists of these that is no prose, and looks for separators: `find_separator`.

    Raises:
        UnknownNameError: a wanted column does not exist.
        ConfigError: a wanted column holds no values that could be named, such as pictures.
    """
    own = [name for name in items.columns if name not in NO_ATTRIBUTES]
    if wanted is None:
        return {name: find_separator(items[name]) for name in own if _describes(items[name])}
    for name in wanted:
        if name not in own:
            raise UnknownNameError("item attribute in export.attributes", name, own)
        if not _nameable(items[name].dtype):
            raise ConfigError(f"export.attributes.{name}: a column of {items[name].dtype} has no values to filter by")
    return dict(wanted)


def find_separator(column: pl.Series) -> str:
    """The first of `SEPARATORS` that a fifth of the filled texts hold, else `WHOLE`; lists need none.

    A comma counts as ``","`` only where neither a space nor a digit follows.

    >>> find_separator(pl.Series(["Toys,Cats, Dogs & Birds", "Toys"])), find_separator(pl.Series(["Drama, War", "War"]))
    (',', ', ')
    """
    if column.dtype != pl.String:
        return WHOLE
    texts = column.drop_nulls().filter(column.drop_nulls() != "")
    for separator in SEPARATORS if len(texts) else ():
        found = texts.str.contains(r",[^\s\d]") if separator == "," else texts.str.contains(separator, literal=True)
        if float(found.sum()) >= SHARE * len(texts):
            return separator
    return WHOLE


def attribute_values(items: pl.DataFrame, separators: Mapping[str, str]) -> pl.DataFrame:
    """(N, A) the values of each attribute as lists of texts: trimmed, without repetitions, in order; empty where none.

    Args:
        items: holds the columns.
        separators: attribute -> separator. ``","`` splits at commas that no space follows, so that ``"Test, Measure"``
            stays one value.
    """
    columns = []
    for name, separator in separators.items():
        values = _lists(items[name], separator).list.eval(pl.element().str.strip_chars())
        kept = values.list.eval(pl.element().filter(pl.element() != ""))
        columns.append(kept.list.unique(maintain_order=True).fill_null([]).alias(name))
    return pl.DataFrame(columns)


def with_new_items(values: pl.DataFrame, new: pl.DataFrame, separators: Mapping[str, str]) -> pl.DataFrame:
    """(N + M, A) `values`, and below them what the table `new` of M items says; nothing of columns that it lacks."""
    found = attribute_values(new, {name: separators.get(name, WHOLE) for name in values.columns if name in new.columns})
    nothing = pl.Series([[]] * new.height, dtype=pl.List(pl.String))
    return values.vstack(
        pl.DataFrame({name: found[name] if name in found.columns else nothing for name in values.columns})
    )


def _lists(column: pl.Series, separator: str) -> pl.Series:
    if isinstance(column.dtype, pl.List | pl.Array):
        return column.cast(pl.List(_whole(column.explode()))).cast(pl.List(pl.String))
    texts = column.cast(_whole(column)).cast(pl.String)
    if separator == WHOLE:
        return texts.to_frame().select(pl.concat_list(pl.all())).to_series()
    if separator == ",":
        parts: pl.Series = texts.str.replace_all(", ", "\0").str.split(",")
        return parts.list.eval(pl.element().str.replace_all("\0", ", "))
    return texts.str.split(separator)


def _whole(column: pl.Series) -> pl.DataType:
    """Integers for a column of floats that are all whole (as a column of integers with gaps is read), else its type."""
    if column.dtype.is_float() and bool((column.drop_nulls() % 1 == 0).all()):
        return pl.Int64()
    return column.dtype


def _nameable(kind: pl.DataType) -> bool:
    inner = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
    return inner.is_numeric() or inner in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)


def _describes(column: pl.Series) -> bool:
    """Whether people filter by it: it holds names of kinds, not measures, prose or pictures."""
    if not _nameable(column.dtype):
        return False
    values = column.explode() if isinstance(column.dtype, pl.List | pl.Array) else column
    if _whole(values).is_float():
        return False
    mean = values.str.len_chars().mean() if values.dtype == pl.String else None
    return mean is None or float(str(mean)) <= PROSE
