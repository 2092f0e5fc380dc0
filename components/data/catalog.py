"""The item file -> one row per catalogued item: its text, its picture and the user's own columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.data.cleaning import clean
from components.data.formats import column_names, read_batches
from components.data.item_images import read_images, resolve_image_column
from components.data.item_text import item_text
from components.data.presets import TableFormat, get_preset
from components.data.readers import InputConfig, missing_column
from components.data.sources import Source, find_sources
from components.errors import DataError
from components.schema import COUNT, IMAGE, ITEM, ITEM_ID, TEXT

RESERVED: Final = (ITEM, COUNT, TEXT)  # columns of the prepared set; the user's own of these names only make the text
_SHOWN: Final = 3  # ids in a message


@dataclass(frozen=True)
class ItemTable:
    """What is known about the catalogued items.

    Attributes:
        frame: ``item_id``, ``text`` (never null), the user's own columns and ``image``; in the order asked for.
        counts: of the item file and of what it lacks, for the manifest.
        text_columns: of which the text was made.
    """

    frame: pl.DataFrame
    counts: dict[str, int]
    text_columns: list[str]


def read_items(data: str, config: InputConfig, ids: pl.Series) -> ItemTable:
    """Read what the item file says about the items `ids`.

    Items that the file lacks have an empty text; they are counted, not dropped.

    Raises:
        DataError: a file or a column is missing, or no item of the log is in the file.
    """
    catalog = pl.DataFrame({ITEM_ID: ids})
    text_columns: list[str] = []
    counts: dict[str, int] = {}
    if config.items is None:
        catalog = catalog.with_columns(pl.lit("").alias(TEXT))
    else:
        found, counts, text_columns = _item_file(data, config, catalog)
        catalog = catalog.join(found, on=ITEM_ID, how="left", maintain_order="left")
        catalog = catalog.with_columns(pl.col(TEXT).fill_null(""))
        counts["items_without_text"] = catalog.filter(pl.col(TEXT) == "").height
    if config.images is not None:
        images = read_images(data, config, catalog)
        catalog = catalog.drop(IMAGE, strict=False).join(images.frame, on=ITEM_ID, how="left", maintain_order="left")
        counts |= images.counts
    if IMAGE in catalog.columns and (config.images is not None or IMAGE in config.item_columns):
        counts["items_without_image"] = catalog[IMAGE].null_count()
    return ItemTable(catalog, counts, text_columns)


def _item_file(data: str, config: InputConfig, catalog: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int], list[str]]:
    sources = find_sources(data, str(config.items), "input.items")
    preset = get_preset(config.preset)
    names = column_names(sources[0], preset.items)
    mapped = {**preset.items.columns, **config.item_columns}
    id_column = mapped.get(ITEM_ID, ITEM_ID)
    if id_column not in names:
        raise missing_column(ITEM_ID, id_column, names, sources[0].name, "input.item_columns")
    text_columns = _text_columns(config, preset.text_columns, names, sources[0].name)
    image = None if config.images else mapped.get(IMAGE)  # a file of pictures has its own column for them
    columns = _own_columns(sources[0], names, id_column, text_columns, image)
    seen = 0
    parts = []
    for source in sources:
        for batch in identified(source, preset.items, columns, id_column, ITEM_ID):
            seen += batch.height
            parts.append(batch.join(catalog, on=ITEM_ID, how="semi"))
    rows = pl.concat(parts, how="vertical_relaxed") if parts else pl.DataFrame(schema={ITEM_ID: pl.String})
    unique = rows.unique(ITEM_ID, keep="first", maintain_order=True)
    if unique.is_empty() and not catalog.is_empty():
        raise _no_common_item(sources[0], id_column, catalog, names)
    counts = {
        "rows_in_item_file": seen,
        "repeated_rows_in_item_file": rows.height - unique.height,
        "items_missing_from_item_file": catalog.height - unique.height,
    }
    described = _with_text(unique, text_columns, image)
    if image is not None:
        images = resolve_image_column(described, sources[0], image)
        described = described.drop(IMAGE).join(
            images.frame.select(ITEM_ID, IMAGE), on=ITEM_ID, how="left", maintain_order="left"
        )
        counts |= images.counts
    return described, counts, text_columns


def identified(
    source: Source, form: TableFormat, columns: list[str], id_column: str, name: str
) -> Iterator[pl.DataFrame]:
    """Batches of an item or user file with clean ids in the column `name`; rows without one describe nothing."""
    for batch in read_batches(source, form, columns, nested=True):
        raw = batch.frame.select(pl.col(id_column).alias(name))
        cleaned = clean(raw, source.name)
        own = batch.frame.drop(id_column)[cleaned.rows["row"]]
        yield cleaned.rows.select(pl.col(name).cast(pl.String)).hstack(own.drop(name, strict=False).get_columns())


def _text_columns(config: InputConfig, usual: tuple[str, ...], names: list[str], file: str) -> list[str]:
    for name in config.text_columns:
        if name not in names:
            raise missing_column(name, name, names, file, "input.text_columns")
    return list(config.text_columns) or [name for name in usual if name in names]


def _own_columns(source: Source, names: list[str], id_column: str, text: list[str], image: str | None) -> list[str]:
    """What is read: everything; of JSON lines, whose rows can hold whole pages, only what is used."""
    if image is not None and image not in names:
        raise missing_column(IMAGE, image, names, source.name, "input.item_columns")
    if source.format != "json":
        return names
    used = {id_column, "title", *text, *([image] if image else [])}
    return [name for name in names if name in used]


def _no_common_item(source: Source, id_column: str, catalog: pl.DataFrame, names: list[str]) -> DataError:
    shown = ", ".join(map(repr, catalog[ITEM_ID].head(_SHOWN)))
    return DataError(
        f"{source.name}: column {id_column!r} holds none of the log's item ids (such as {shown}); "
        f"map input.item_columns.item_id to another of: {', '.join(names)}"
    )


def _with_text(rows: pl.DataFrame, text_columns: list[str], image: str | None) -> pl.DataFrame:
    texts = pl.Series(TEXT, map(item_text, rows.select(text_columns).iter_rows()), dtype=pl.String)
    if not text_columns:
        texts = pl.Series(TEXT, [""] * rows.height, dtype=pl.String)
    renamed = rows.rename({image: IMAGE}) if image in rows.columns else rows
    return renamed.drop(RESERVED, strict=False).with_columns(texts)


# Numbers


def number_items(train_counts: NDArray[np.int64], alive: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(N,) item number of every code: 1 is the most frequent in training, ties by item id; 0 where not alive.

    Args:
        train_counts: (N,) training interactions by code; codes follow the order of item ids.
        alive: (N,) which codes are in the catalogue.

    >>> number_items(np.array([2, 7, 2, 9]), np.array([True, True, True, False])).tolist()
    [2, 1, 3, 0]
    """
    codes = np.flatnonzero(alive)
    order = codes[np.argsort(-train_counts[codes], kind="stable")]
    numbers = np.zeros(len(alive), np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers


def numbered_items(items: pl.DataFrame, numbers: NDArray[np.int32], train_counts: NDArray[np.int64]) -> pl.DataFrame:
    """The catalogue as it is written: item, item_id, count, text, the user's own columns; in the order of numbers."""
    numbered = items.with_columns(pl.Series(ITEM, numbers), pl.Series(COUNT, train_counts)).filter(pl.col(ITEM) > 0)
    return numbered.select(ITEM, ITEM_ID, COUNT, TEXT, pl.exclude(ITEM, ITEM_ID, COUNT, TEXT)).sort(ITEM)
