"""Files to raw tables, batch by batch: text stays text, so that a bad field condemns its row and not the file."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Final, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from components.data.presets import TableFormat
from components.data.sources import Source
from components.errors import DataError

BLOCK_BYTES: Final = 16 << 20  # of text that is parsed at once; also the longest row
BATCH_ROWS: Final = 1 << 20  # of Parquet that are read at once
HEADER_ROWS: Final = 100  # JSON lines whose keys are the columns
INNER_SEPARATOR: Final = "\x1f"  # stands for a separator of several characters while a block is parsed
SEPARATORS: Final = {"csv": ",", "tsv": "\t"}
LIST_SEPARATOR: Final = ", "  # between the entries of a list that becomes one text
MALFORMED: Final = "the line does not have the columns of the header"
NOT_JSON: Final = "the line is not a JSON object"


@dataclass
class RawBatch:
    """Some rows of a file.

    Attributes:
        frame: the file's own column names; text columns of text files, native types of Parquet.
        malformed: lines that are no rows, as they stand in the file.
        reason: why they are none.
    """

    frame: pl.DataFrame
    malformed: list[str] = field(default_factory=list)
    reason: str = MALFORMED


def column_names(source: Source, form: TableFormat) -> list[str]:
    """The file's columns without types. For JSON lines, the keys of the first lines.

    Raises:
        DataError: the file is empty, truncated or of another format.
    """
    with _explained(source):
        if source.format == "parquet":
            return list(pq.read_schema(source.path, filesystem=source.filesystem).names)
        if source.format == "json":
            return _keys(source)
        if form.names:
            return list(form.names)
        return [form.plain(name) for name in _header(source, form)]


def read_batches(source: Source, form: TableFormat, columns: list[str], nested: bool = False) -> Iterator[RawBatch]:
    """The rows of a file in order; only `columns`, all of which the file must have.

    Args:
        source: the file.
        form: how it is written.
        columns: under the file's own names.
        nested: JSON values may be lists, which become one text; slower.

    Raises:
        DataError: the file is empty, truncated or of another format.
    """
    with _explained(source):
        if source.format == "parquet":
            yield from _parquet(source, columns)
        elif source.format == "json":
            yield from _json(source, columns, nested)
        else:
            yield from _delimited(source, form, columns)


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        detail = str(error).split("\n")[0]
        raise DataError(
            f"{source.name}: cannot be read as {source.format} ({detail}); "
            "the file is empty, truncated or of another format: write or copy it again"
        ) from error


def _open(source: Source) -> IO[bytes]:
    return source.filesystem.open_input_stream(source.path, compression="detect")  # type: ignore[no-any-return]


def _separator(source: Source, form: TableFormat) -> str:
    return form.separator or SEPARATORS[source.format]


# Parquet


def _parquet(source: Source, columns: list[str]) -> Iterator[RawBatch]:
    with source.filesystem.open_input_file(source.path) as stream:
        file = pq.ParquetFile(stream)
        groups = list(source.row_groups) if source.row_groups is not None else None
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns, row_groups=groups):
            yield RawBatch(cast(pl.DataFrame, pl.from_arrow(pa.Table.from_batches([batch]))).select(columns))


# Delimited text


def _header(source: Source, form: TableFormat) -> list[str]:
    """The column names as they stand in the file."""
    with _open(source) as stream:
        reader = pacsv.open_csv(
            stream, parse_options=_parse_options(source, form, []), read_options=_read_options(form)
        )
        return list(reader.schema.names)


def _delimited(source: Source, form: TableFormat, columns: list[str]) -> Iterator[RawBatch]:
    malformed: list[str] = []
    header = list(form.names or _header(source, form))
    wanted = {form.plain(name): name for name in header if form.plain(name) in columns}
    options = {
        "parse_options": _parse_options(source, form, malformed),
        "read_options": _read_options(form),
        "convert_options": pacsv.ConvertOptions(
            include_columns=list(wanted.values()),
            column_types=dict.fromkeys(wanted.values(), pa.binary() if form.encoding == "utf8" else pa.string()),
            strings_can_be_null=False,
        ),
    }
    with _open(source) as stream:
        for batch in _parsed(stream, _separator(source, form), options):
            frame = pl.DataFrame({name: _text(batch.column(real)) for name, real in wanted.items()})
            lines = malformed.copy()
            malformed.clear()
            yield RawBatch(frame.select(columns), lines)
    if malformed:
        yield RawBatch(pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), malformed)


def _parsed(stream: IO[bytes], separator: str, options: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    if len(separator) == 1:
        yield from pacsv.open_csv(stream, **options)
        return
    for block in _blocks(stream):
        narrow = block.replace(separator.encode(), INNER_SEPARATOR.encode())
        yield from pacsv.read_csv(io.BytesIO(narrow), **options).to_batches()


def _parse_options(source: Source, form: TableFormat, malformed: list[str]) -> pacsv.ParseOptions:
    def skip(row: Any) -> str:
        malformed.append(row.text)
        return "skip"

    separator = _separator(source, form)
    return pacsv.ParseOptions(
        delimiter=separator if len(separator) == 1 else INNER_SEPARATOR,
        quote_char='"' if form.quoted else False,
        newlines_in_values=form.quoted,
        invalid_row_handler=skip,
    )


def _read_options(form: TableFormat) -> pacsv.ReadOptions:
    return pacsv.ReadOptions(
        column_names=list(form.names) if form.names else None, block_size=BLOCK_BYTES, encoding=form.encoding
    )


def _text(column: pa.Array) -> pl.Series:
    """Bytes as text; a value that is not UTF-8 keeps the replacement character, by which cleaning knows it."""
    try:
        return pl.Series(column.cast(pa.string()))
    except pa.ArrowInvalid:
        return pl.Series([value.decode("utf8", errors="replace") for value in column.to_pylist()])


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """The stream in pieces that end at a line's end."""
    rest = b""
    while piece := stream.read(BLOCK_BYTES):
        whole, newline, tail = (rest + piece).rpartition(b"\n")
        if whole:
            yield whole + newline
        rest = tail
    if rest:
        yield rest


# JSON lines


def _keys(source: Source) -> list[str]:
    """Keys of the first lines, in order of appearance; lines that are no objects are left to the reading."""
    with _open(source) as stream:
        block = next(_blocks(stream), b"")
    objects = (_object(line) for line in itertools.islice(block.splitlines(), HEADER_ROWS))
    names = list(dict.fromkeys(key for found in objects if found is not None for key in found))
    if not names:
        raise pa.ArrowInvalid("no JSON object in its first lines")
    return names


def _json(source: Source, columns: list[str], nested: bool) -> Iterator[RawBatch]:
    with _open(source) as stream:
        for block in _blocks(stream):
            frame = None if nested else _at_once(block, columns)
            yield _line_by_line(block, columns) if frame is None else RawBatch(frame)


def _at_once(block: bytes, columns: list[str]) -> pl.DataFrame | None:
    """The fast way; None where a line of the block is no JSON object."""
    try:
        return pl.read_ndjson(block, schema=dict.fromkeys(columns, pl.String))
    except pl.exceptions.PolarsError:
        return None


def _line_by_line(block: bytes, columns: list[str]) -> RawBatch:
    """The slow way: a bad line is kept apart, a list becomes one text."""
    rows: dict[str, list[str | None]] = {name: [] for name in columns}
    malformed = []
    for line in filter(None, (line.strip() for line in block.split(b"\n"))):
        found = _object(line)
        if found is None:
            malformed.append(line.decode("utf8", errors="replace"))
            continue
        for name in columns:
            rows[name].append(_scalar(found.get(name)))
    return RawBatch(pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String)), malformed, NOT_JSON)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _scalar(value: Any) -> str | None:
    """A JSON value as text: lists of names joined, other structures as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return LIST_SEPARATOR.join(value)
    return json.dumps(value, ensure_ascii=False)
