"""The file of new items -> those that can be added, those that are known already, and those that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from components.data.catalog import RESERVED, read_items
from components.data.cleaning import clean
from components.data.formats import column_names, read_batches
from components.data.item_text import NO_TEXT, as_text, item_text
from components.data.presets import get_preset
from components.data.readers import InputConfig
from components.data.sources import find_sources
from components.errors import DataError, nearest
from components.schema import IMAGE, ITEM_ID, TEXT

ROOT: Final = "/"  # paths of the command line are made absolute
REPEATED: Final = "stands in several rows; keep one of them"


@dataclass(frozen=True)
class ItemColumns:
    """How the file of new items calls what the run knows under other names.

    Attributes:
        item_id: the column of ids; None as the run's own item file calls it.
        texts: the run's text column -> the file's, where they differ.
        image: the column of pictures (bytes, or paths beside the file); None as the run's own item file calls it.
        images: pictures apart: a folder, a table or arrays, as ``input.images``.
    """

    item_id: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    images: str | None = None


@dataclass(frozen=True)
class NewItems:
    """What a file of new items holds.

    Attributes:
        frame: ``item_id``, ``text``, the run's text columns and perhaps ``image`` of the items that can be added.
        known: ids that the artifact ranks already.
        refused: id -> why it cannot be added.
        unusable: rows without an id.
    """

    frame: pl.DataFrame
    known: list[str]
    refused: dict[str, str]
    unusable: int

    @property
    def ids(self) -> list[str]:
        """The ids of the items that can be added, in the order of the file."""
        ids: list[str] = self.frame[ITEM_ID].to_list()
        return ids

    def attributes(self, names: Sequence[str]) -> dict[str, list[str]]:
        """One text per item by text column, as the prepared set gives them of its own items."""
        return {name: [as_text(value) for value in self.frame[name].to_list()] for name in names}


def read_new_items(
    file: str, run: InputConfig, text_columns: Sequence[str], columns: ItemColumns, known: set[str]
) -> NewItems:
    """Read a table of new items as the run's own item file was read.

    Args:
        file: the table; its name tells the format.
        run: how the run read its own.
        text_columns: of which the run made its texts, in order.
        columns: other names in `file`.
        known: ids that the artifact ranks already.

    Raises:
        DataError: the file or one of its columns is missing or unreadable.
    """
    source = find_sources(ROOT, _absolute(file), "FILE")[0]
    form = get_preset(run.preset).items
    names = column_names(source, form)
    mapped = {**form.columns, **run.item_columns}
    id_column = columns.item_id or mapped.get(ITEM_ID, ITEM_ID)
    _check(id_column, names, source.name, "--id-column NAME")
    theirs = [_text_column(name, columns, text_columns, names, source.name) for name in text_columns]
    if columns.image is not None:
        _check(columns.image, names, source.name, "--image-column NAME")
    image = columns.image or (mapped.get(IMAGE) if mapped.get(IMAGE) in names and not columns.images else None)
    ids, unusable = _ids(file, run, id_column)
    repeated = set(ids.filter(ids.is_duplicated()).to_list())
    refused = dict.fromkeys(sorted(repeated - known), REPEATED)
    wanted = ids.filter(~ids.is_in(list(known | repeated)))
    settings = InputConfig(
        interactions=run.interactions,
        items=_absolute(file),
        images=None if columns.images is None else _absolute(columns.images),
        preset=run.preset,
        item_columns={ITEM_ID: id_column, **({IMAGE: image} if image else {})},
        text_columns=theirs,
    )
    frame = pl.DataFrame(schema={ITEM_ID: pl.String, TEXT: pl.String})
    if len(wanted):
        table = read_items(ROOT, settings, wanted).frame
        refused |= dict.fromkeys(table.filter(pl.col(TEXT) == "")[ITEM_ID].to_list(), NO_TEXT)
        frame = _named(table.filter(pl.col(TEXT) != ""), dict(zip(text_columns, theirs, strict=True)))
    return NewItems(frame, [name for name in ids.unique(maintain_order=True) if name in known], refused, unusable)


def described_items(texts: Sequence[Mapping[str, str]], text_columns: Sequence[str]) -> NewItems:
    """Items that no file holds, numbered 0, 1, …, as `read_new_items` gives those of a file.

    Args:
        texts: of every item by text column; what is absent is empty.
        text_columns: of which the run made its texts, in order.
    """
    columns = {name: [one.get(name, "") for one in texts] for name in text_columns}
    joined = [item_text(one.get(name) for name in text_columns) for one in texts]
    # As in a prepared set, a text column called like one of the set's own is there as the text that was made of it.
    own = {name: joined if name in RESERVED else values for name, values in columns.items() if name != ITEM_ID}
    ids = [str(place) for place in range(len(texts))]
    return NewItems(pl.DataFrame({ITEM_ID: ids, TEXT: joined, **own}), [], {}, 0)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _ids(file: str, run: InputConfig, id_column: str) -> tuple[pl.Series, int]:
    """The ids of all rows in order, and the number of rows that have none."""
    parts, unusable = [pl.Series(ITEM_ID, [], dtype=pl.String)], 0
    form = get_preset(run.preset).items
    for source in find_sources(ROOT, _absolute(file), "FILE"):
        for batch in read_batches(source, form, [id_column], nested=True):
            cleaned = clean(batch.frame.select(pl.col(id_column).alias(ITEM_ID)), source.name)
            parts.append(cleaned.rows[ITEM_ID].cast(pl.String))
            unusable += cleaned.rejected.height + len(batch.malformed)
    return pl.concat(parts), unusable


def _text_column(name: str, columns: ItemColumns, known: Sequence[str], names: Sequence[str], file: str) -> str:
    for given in columns.texts:
        if given not in known:
            raise DataError(
                f"--text-column {given}={columns.texts[given]}: the run has no text column {given!r}; it has: "
                f"{', '.join(known)}{nearest(given, known)}"
            )
    theirs = columns.texts.get(name, name)
    _check(theirs, names, file, f"--text-column {name}=NAME")
    return theirs


def _check(name: str, names: Sequence[str], file: str, option: str) -> None:
    if name not in names:
        raise DataError(
            f"{file}: no column {name!r}; it has: {', '.join(names)}{nearest(name, names)}; say which it is: {option}"
        )


def _named(table: pl.DataFrame, texts: Mapping[str, str]) -> pl.DataFrame:
    """The table with text columns under the run's names, and pictures where it has any."""
    kept = [ITEM_ID, TEXT, *([IMAGE] if IMAGE in table.columns else [])]
    # A text column called like one of the prepared set's own is there as the text that was made of it.
    renamed = [pl.col(theirs if theirs in table.columns else TEXT).alias(ours) for ours, theirs in texts.items()]
    return table.select(*kept, *(one for one, name in zip(renamed, texts, strict=True) if name not in kept))
