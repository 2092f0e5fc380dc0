"""Interactions as users bring them -> clean rows, whatever the format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.data.cleaning import ROW, ROW_TYPES, Cleaned, clean, malformed_rows
from components.data.formats import column_names, read_batches
from components.data.presets import PRESETS, TableFormat, get_preset
from components.data.sources import Source, find_sources
from components.errors import DataError, nearest
from components.schema import IMAGE, ITEM_ID, POSITION, RATING, REJECTED_FOLDER, TIMESTAMP, USER_ID

INTERACTION_COLUMNS: Final = (USER_ID, ITEM_ID, TIMESTAMP, POSITION, RATING)
PIECE_ROWS: Final = 1 << 20  # Parquet row groups are read together up to this size
_SAMPLE: Final = 1 << 16  # bytes of a text file by which its rows are estimated


class InputConfig(BaseModel):
    """Where the logs, the items and the users lie and how their columns are called.

    Attributes:
        interactions: a file, a folder or a glob below the data root, or a URI such as ``s3://bucket/log/*.parquet``.
        items: the item file or files; None where there are none.
        users: the user file or files; None where there are none. All columns beside the id are attributes.
        images: a folder of files called by item id, a Parquet file of item ids beside bytes or ready vectors, or
            vectors as ``.npz`` (`item_id`, `vector`) or ``.npy`` (ids beside it in ``.ids.txt``).
        preset: names and separators of a public data set.
        columns: our column name -> the log's; ``""`` ignores a column that the log has.
        item_columns: ``item_id`` and ``image`` -> the item file's; an ``image`` of texts holds paths beside that file.
        user_columns: ``user_id`` -> the user file's.
        text_columns: make the item text, in this order; empty takes the usual ones that exist.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    interactions: str = Field(min_length=1)
    items: str | None = None
    users: str | None = None
    images: str | None = None
    preset: str | None = None
    columns: dict[str, str] = {}
    item_columns: dict[str, str] = {}
    user_columns: dict[str, str] = {}
    text_columns: list[str] = []

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS:
            raise ValueError(f"unknown preset {value!r}; known: {', '.join(PRESETS)}{nearest(value, PRESETS)}")
        return value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, INTERACTION_COLUMNS)

    @field_validator("item_columns")
    @classmethod
    def _known_item_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, (ITEM_ID, IMAGE))

    @field_validator("user_columns")
    @classmethod
    def _known_user_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, (USER_ID,))


def _known(value: dict[str, str], known: Iterable[str]) -> dict[str, str]:
    for name in value:
        if name not in known:
            raise ValueError(f"unknown column {name!r}; known: {', '.join(known)}{nearest(name, known)}")
    return value


@dataclass(frozen=True)
class Log:
    """A log that is found and understood, not yet read.

    Attributes:
        sources: its files in order.
        form: how they are written.
        columns: our column name -> the files', for every column that will be read.
    """

    sources: tuple[Source, ...]
    form: TableFormat
    columns: Mapping[str, str]

    def split(self) -> Log:
        """The same log in pieces for parallel reading: row groups of about a million rows, or one file of text."""
        pieces = [piece for source in self.sources for piece in _row_groups(source)]
        return replace(self, sources=tuple(replace(piece, index=index) for index, piece in enumerate(pieces)))


def open_log(data: str, config: InputConfig) -> Log:
    """Find the log's files and their columns; reads headers only.

    Raises:
        DataError: nothing is there, a column is missing, or nothing tells the order in time.
    """
    sources = find_sources(data, config.interactions, "input.interactions")
    form = get_preset(config.preset).interactions
    names = column_names(sources[0], form)
    columns = resolve_columns({**form.columns, **config.columns}, names, sources[0].name, "input.columns")
    if TIMESTAMP not in columns and POSITION not in columns:
        raise DataError(
            f"{sources[0].name}: nothing tells the order in time: map {TIMESTAMP!r} or {POSITION!r} "
            f"in input.columns; the file has: {', '.join(names)}"
        )
    return Log(tuple(sources), form, columns)


def resolve_columns(wanted: Mapping[str, str], names: list[str], file: str, key: str) -> dict[str, str]:
    """Our interaction columns -> the file's, for all that exist.

    Raises:
        DataError: a required or an explicitly mapped column is missing.
    """
    found = {}
    for column in INTERACTION_COLUMNS:
        name = wanted.get(column, column)
        if name in names:
            found[column] = name
        elif name and (column in wanted or column in (USER_ID, ITEM_ID)):
            raise missing_column(column, name, names, file, key)
    return found


def missing_column(column: str, name: str, names: Iterable[str], file: str, key: str) -> DataError:
    """The error for a column that a file lacks: what it has, and which of it looks alike."""
    listed = list(names)
    hint = nearest(name, listed) or nearest(column, listed)
    return DataError(f"{file}: no column {name!r} for {key}.{column}; it has: {', '.join(listed)}{hint}")


def estimate_rows(log: Log) -> int:
    """Rows of the log: counted for Parquet, for text estimated from its first bytes (4 times as many if compressed)."""
    return sum(_rows(source) for source in log.sources)


def read_rows(source: Source, log: Log, rejected: Path) -> Iterator[pl.DataFrame]:
    """Clean rows of one source; unusable ones go to a file of its own in the folder `rejected`.

    The rejected file appears whole or not at all, so a task that is killed and repeated leaves one file.
    """
    names = column_names(source, log.form)
    for column, name in log.columns.items():
        if name not in names:
            raise missing_column(column, name, names, source.name, "input.columns")
    quarantine = Quarantine(rejected / f"part-{source.index:05d}.parquet")
    row = source.index << 40
    for batch in read_batches(source, log.form, list(log.columns.values())):
        raw = batch.frame.select(pl.col(name).alias(column) for column, name in log.columns.items())
        cleaned: Cleaned = clean(raw, source.name, row)
        row += raw.height
        quarantine.add(cleaned.rejected)
        quarantine.add(malformed_rows(batch.malformed, batch.reason, source.name))
        yield cleaned.rows
    quarantine.close()


def no_rows(log: Log) -> pl.DataFrame:
    """What `read_rows` yields, without any row."""
    columns = (*log.columns, ROW)
    return pl.DataFrame(schema={name: ROW_TYPES[name] for name in columns})


class Quarantine:
    """Writes rejected rows to one Parquet file, which exists only if there are any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_suffix(".partial")
        self._writer: pq.ParquetWriter | None = None

    def add(self, rejected: pl.DataFrame) -> None:
        """Write some rows."""
        if rejected.is_empty():
            return
        table: pa.Table = rejected.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """Make the file appear."""
        if self._writer is not None:
            self._writer.close()
            self._partial.replace(self.path)


def rejected_counts(folder: Path) -> dict[str, int]:
    """Rejected rows by reason, most frequent first."""
    files = sorted((folder / REJECTED_FOLDER).glob("*.parquet"))
    if not files:
        return {}
    counts = pl.scan_parquet(files).group_by("reason").len().sort("len", "reason", descending=[True, False]).collect()
    return dict(counts.iter_rows())


def rejected_example(folder: Path) -> dict[str, str] | None:
    """One rejected row, with its source and reason."""
    files = sorted((folder / REJECTED_FOLDER).glob("*.parquet"))
    return pl.scan_parquet(files[0]).head(1).collect().to_dicts()[0] if files else None


def _row_groups(source: Source) -> list[Source]:
    if source.format != "parquet":
        return [source]
    metadata = pq.read_metadata(source.path, filesystem=source.filesystem)
    pieces: list[list[int]] = []
    rows = PIECE_ROWS
    for group in range(metadata.num_row_groups):
        if rows >= PIECE_ROWS:
            pieces.append([])
            rows = 0
        pieces[-1].append(group)
        rows += metadata.row_group(group).num_rows
    return [replace(source, row_groups=tuple(piece)) for piece in pieces] or [source]


def _rows(source: Source) -> int:
    if source.format == "parquet":
        return int(pq.read_metadata(source.path, filesystem=source.filesystem).num_rows)
    with source.filesystem.open_input_stream(source.path, compression="detect") as stream:
        sample: bytes = stream.read(_SAMPLE)
    compressed = not source.path.lower().endswith(tuple(f".{part}" for part in ("csv", "tsv", "dat", "json", "jsonl")))
    return source.size * (4 if compressed else 1) * max(sample.count(b"\n"), 1) // max(len(sample), 1)
