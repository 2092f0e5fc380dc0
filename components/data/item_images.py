"""Item pictures as users bring them -> one column of the catalog: encoded bytes, or vectors made elsewhere."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.fs as pafs

from components.data.cleaning import clean
from components.data.formats import column_names, read_batches
from components.data.presets import TableFormat
from components.data.readers import InputConfig, missing_column
from components.data.sources import Source, find_sources, locate
from components.errors import DataError
from components.schema import IMAGE, ITEM_ID

PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
ARRAYS: Final = (".npy", ".npz")
IDS_SUFFIX: Final = ".ids.txt"  # beside vectors.npy: vectors.ids.txt, one item id per row
VECTOR: Final = "vector"  # the array of an .npz; its other one is item_id
MAX_FILE_BYTES: Final = 64 << 20  # larger files are no item pictures; they are not even read
VECTORS: Final = pl.List(pl.Float32)


@dataclass
class ItemImages:
    """Pictures of some items.

    Attributes:
        frame: ``item_id`` and ``image``: encoded bytes, or a list of float32; each item once.
        counts: what could not be read, for the manifest.
    """

    frame: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)


def read_images(data: str, config: InputConfig, catalog: pl.DataFrame) -> ItemImages:
    """What `config.images` holds of the items in `catalog`: a folder, a table, or arrays of vectors.

    Raises:
        DataError: nothing is there, a column is missing or of the wrong type, or vectors cannot be used.
    """
    filesystem, path = locate(data, str(config.images))
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        return _folder(filesystem, path, catalog)
    found = _arrays(filesystem, path) if path.lower().endswith(ARRAYS) else _table(data, config)
    known = found.join(catalog, on=ITEM_ID, how="semi")
    if known.is_empty() and not catalog.is_empty():
        shown = ", ".join(map(repr, catalog[ITEM_ID].head(3)))
        raise DataError(f"{path}: holds no picture of the log's items (such as {shown}); it is keyed by item_id")
    unique = known.unique(ITEM_ID, keep="first", maintain_order=True)
    return ItemImages(
        unique,
        {
            "images_of_unknown_items": found.height - known.height,
            "repeated_images": known.height - unique.height,
        },
    )


def image_files(data: str, path: str) -> list[Source]:
    """Every file that ``input.images`` means, by path: the pictures of a folder, arrays with ids, or a table.

    Raises:
        DataError: nothing is there.
    """
    filesystem, full = locate(data, path)
    infos = filesystem.get_file_info([full, full[: -len(".npy")] + IDS_SUFFIX])
    if infos[0].type == pafs.FileType.Directory:
        inside = filesystem.get_file_info(pafs.FileSelector(full))
        infos = [info for info in inside if Path(info.path).suffix.lower() in PICTURES]
    elif not full.lower().endswith(ARRAYS):
        return find_sources(data, path, "input.images")
    found = [info for info in infos if info.type == pafs.FileType.File]
    if not found:
        raise DataError(f"input.images: {full} does not exist or holds no picture; check input.images and data")
    ordered = sorted(found, key=lambda info: str(info.path))
    return [Source(filesystem, info.path, "image", index, info.size or 0) for index, info in enumerate(ordered)]


def resolve_image_column(frame: pl.DataFrame, source: Source, column: str) -> ItemImages:
    """The pictures of an item table that were asked for by ``input.item_columns.image``.

    Bytes and vectors are taken as they are; texts are paths, below the folder of the item file.

    Args:
        frame: with ``item_id`` and ``image``.
        source: the item file.
        column: its own name for the pictures.

    Raises:
        DataError: the column is of another type, or none of its paths can be read.
    """
    if frame[IMAGE].dtype != pl.String:
        return ItemImages(_typed(frame, source.name, column))
    root = source.path.rpartition("/")[0]
    counts = {"image_files_missing": 0, "image_files_too_large": 0}
    wanted = {name: path for name, path in frame.select(ITEM_ID, IMAGE).iter_rows() if path}
    pictures: dict[str, bytes] = {}
    for name, path in wanted.items():
        content = _read(source.filesystem, path if path.startswith("/") else f"{root}/{path}", counts)
        if content is not None:
            pictures[name] = content
    if wanted and not pictures:
        raise DataError(
            f"{source.name}: column {column!r} holds paths, such as {next(iter(wanted.values()))!r}, and none of them "
            f"can be read below {root}; give paths below it, absolute ones, or bytes (nothing is downloaded)"
        )
    return ItemImages(_frame(pictures), counts)


def _frame(pictures: dict[str, bytes]) -> pl.DataFrame:
    columns = {ITEM_ID: list(pictures), IMAGE: list(pictures.values())}
    return pl.DataFrame(columns, schema={ITEM_ID: pl.String, IMAGE: pl.Binary})


def _folder(filesystem: pafs.FileSystem, path: str, catalog: pl.DataFrame) -> ItemImages:
    """Pictures in files called by item id: ``B000123.jpg``."""
    infos = filesystem.get_file_info(pafs.FileSelector(path))
    files = {Path(info.path).stem: info.path for info in infos if Path(info.path).suffix.lower() in PICTURES}
    counts = {"image_files_missing": 0, "image_files_too_large": 0}
    pictures: dict[str, bytes] = {}
    for name in catalog[ITEM_ID]:
        content = _read(filesystem, files[name], counts) if name in files else None
        if content is not None:
            pictures[name] = content
    return ItemImages(_frame(pictures), counts)


def _read(filesystem: pafs.FileSystem, path: str, counts: dict[str, int]) -> bytes | None:
    """The content of a file; None, and counted, where there is none or far too much."""
    info = filesystem.get_file_info(path)
    if info.type != pafs.FileType.File:
        counts["image_files_missing"] += 1
        return None
    if (info.size or 0) > MAX_FILE_BYTES:
        counts["image_files_too_large"] += 1
        return None
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())
    except OSError:
        counts["image_files_missing"] += 1
        return None


def _table(data: str, config: InputConfig) -> pl.DataFrame:
    """A table of its own: item ids beside bytes or vectors."""
    source = find_sources(data, str(config.images), "input.images")[0]
    names = column_names(source, TableFormat())
    wanted = {ITEM_ID: config.item_columns.get(ITEM_ID, ITEM_ID), IMAGE: config.item_columns.get(IMAGE, IMAGE)}
    for column, name in wanted.items():
        if name not in names:
            raise missing_column(column, name, names, source.name, "input.item_columns")
    parts = []
    for batch in read_batches(source, TableFormat(), list(wanted.values()), nested=True):
        cleaned = clean(batch.frame.select(pl.col(wanted[ITEM_ID]).alias(ITEM_ID)), source.name)
        images = batch.frame[wanted[IMAGE]].alias(IMAGE)[cleaned.rows["row"]]
        parts.append(_typed(cleaned.rows.select(pl.col(ITEM_ID).cast(pl.String), images), source.name, wanted[IMAGE]))
    return pl.concat(parts)


def _typed(frame: pl.DataFrame, file: str, column: str) -> pl.DataFrame:
    """The column ``image`` as bytes or as lists of float32 of one width."""
    kind = frame[IMAGE].dtype
    if kind == pl.Null:
        return frame.with_columns(pl.col(IMAGE).cast(pl.Binary))
    if kind == pl.Binary:
        return frame
    inner = getattr(kind, "inner", None)
    if inner is None or not inner.is_float():
        raise DataError(
            f"{file}: column {column!r} is of type {kind}; pictures are bytes (binary), ready vectors lists of floats"
        )
    return frame.with_columns(_checked_lists(frame[IMAGE].cast(VECTORS), file, column))


def _checked_lists(vectors: pl.Series, file: str, column: str) -> pl.Series:
    widths = vectors.list.len().drop_nulls().unique()
    if len(widths) > 1 or 0 in widths:
        shown = ", ".join(map(str, widths.sort().head(5)))
        raise DataError(f"{file}: column {column!r} has vectors of {shown} numbers; all must have the same")
    values = vectors.explode().drop_nulls() if len(widths) else pl.Series([], dtype=pl.Float32)
    known = len(vectors) - vectors.null_count()
    if len(widths) and (len(values) != known * widths[0] or not values.is_finite().all()):
        raise DataError(f"{file}: column {column!r} holds NaN, infinity or gaps within vectors; leave out those rows")
    return vectors


# Arrays


def _arrays(filesystem: pafs.FileSystem, path: str) -> pl.DataFrame:
    """Vectors of an ``.npz`` (`item_id`, `vector`), or of an ``.npy`` beside which a text file has the ids."""
    if filesystem.get_file_info(path).type != pafs.FileType.File:
        raise DataError(f"input.images: {path} does not exist; check input.images and data")
    try:
        if path.lower().endswith(".npz"):
            ids, vectors = _npz(filesystem, path)
        else:
            ids, vectors = _npy(filesystem, path)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: damaged, or no array of plain numbers ({error})") from error
    if vectors.ndim != 2 or 0 in vectors.shape or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(f"{path}: shape {vectors.shape} of {vectors.dtype}; expected floats of shape (items, width)")
    if len(ids) != len(vectors):
        raise DataError(f"{path}: {len(vectors)} vectors for {len(ids)} item ids")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise DataError(f"{path}: NaN or infinity in {int(bad.sum())} rows, the first is row {int(bad.argmax())}")
    lists = pl.Series(IMAGE, vectors.astype(np.float32)).cast(VECTORS)
    return pl.DataFrame({ITEM_ID: pl.Series(ids, dtype=pl.String)}).with_columns(lists)


def _bytes(filesystem: pafs.FileSystem, path: str) -> io.BytesIO:
    with filesystem.open_input_stream(path, compression=None) as stream:
        return io.BytesIO(stream.read())


def _npz(filesystem: pafs.FileSystem, path: str) -> tuple[list[str], Any]:
    with np.load(_bytes(filesystem, path), allow_pickle=False) as arrays:
        if set(arrays.files) != {ITEM_ID, VECTOR}:
            held = ", ".join(arrays.files) or "nothing"
            raise DataError(f"{path}: holds {held}; expected the arrays {ITEM_ID!r} and {VECTOR!r}")
        return [str(name) for name in arrays[ITEM_ID].tolist()], arrays[VECTOR]


def _npy(filesystem: pafs.FileSystem, path: str) -> tuple[list[str], Any]:
    beside = path[: -len(".npy")] + IDS_SUFFIX
    if filesystem.get_file_info(beside).type != pafs.FileType.File:
        raise DataError(f"{path}: needs {beside} beside it, one item id per row; or use .npz or .parquet")
    ids = _bytes(filesystem, beside).read().decode("utf-8").splitlines()
    return ids, np.load(_bytes(filesystem, path), allow_pickle=False)
