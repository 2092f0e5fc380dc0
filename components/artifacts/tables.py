"""The tables of an artifact that serves: its items, their titles and their attributes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from components.artifacts.format import REMEDY
from components.errors import ArtifactError
from components.schema import TEXT, TITLE

TEXT_LENGTH: Final = 120  # characters of an item's text that stand in for a missing title


def read_table(path: Path, needed: Sequence[str]) -> pl.DataFrame:
    """Read a table.

    Raises:
        ArtifactError: it is no Parquet, or lacks one of the columns `needed`.
    """
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: not readable as Parquet ({error}); {REMEDY}") from error
    lacking = [name for name in needed if name not in table.columns]
    if lacking:
        raise ArtifactError(f"{path}: lacks the columns {', '.join(lacking)}; {REMEDY}")
    return table


def read_attributes(path: Path, num_items: int) -> pl.DataFrame:
    """(N, A) lists of texts: the values of every attribute, row ``i`` of item ``i + 1``.

    Raises:
        ArtifactError: it is no such table, or of another number of items.
    """
    table = read_table(path, [])
    if table.height != num_items or any(kind != pl.List(pl.String) for kind in table.dtypes):
        raise ArtifactError(f"{path}: expected lists of texts for {num_items} items; {REMEDY}")
    return table


def titles(table: pl.DataFrame) -> list[str | None]:
    """An item's title, else the beginning of its text, else None."""
    columns = [pl.col(name).cast(pl.String).replace("", None) for name in (TITLE, TEXT) if name in table.columns]
    if not columns:
        return [None] * table.height
    return table.select(pl.coalesce(columns).str.slice(0, TEXT_LENGTH)).to_series().to_list()
