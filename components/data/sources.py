"""Where input files lie: a file, a folder or a glob, below the data root, local or on any pyarrow filesystem."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs as pafs

from components.errors import DataError

FORMATS: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".inter": "tsv",
    ".item": "tsv",
    ".user": "tsv",
    ".dat": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
COMPRESSED: Final = (".gz", ".bz2", ".zst", ".lz4")
_GLOB: Final = frozenset("*?[")


@dataclass(frozen=True)
class Source:
    """One input file, or some row groups of a Parquet file. Small and picklable: a task receives it, not the rows.

    Attributes:
        filesystem: where it lies.
        path: on that filesystem.
        format: ``csv``, ``tsv``, ``json`` or ``parquet``.
        index: rank among all sources of the input; rows keep the order of (index, row).
        size: bytes.
        row_groups: of a Parquet file; None takes all.
    """

    filesystem: pafs.FileSystem
    path: str
    format: str
    index: int
    size: int
    row_groups: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.path


def locate(data: str, path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem and the path on it of `path` below the root `data`."""
    if "://" not in path and "://" in data and not path.startswith("/"):
        path = f"{data.rstrip('/')}/{path}"
    if "://" not in path:
        return pafs.LocalFileSystem(), str((Path(data).expanduser() / Path(path).expanduser()).absolute())
    scheme = path.split("://", 1)[0]
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: no filesystem for {scheme}:// ({error}); use a local path, s3:// or gs://") from error
    return filesystem, inner


def find_sources(data: str, path: str, key: str) -> list[Source]:
    """Every file that `path` means, ordered by path.

    Args:
        data: the data root, a folder or a URI.
        path: a file, a folder (all readable files below it) or a glob.
        key: the configuration key that holds `path`, for messages.

    Raises:
        DataError: nothing is there, or a file's format cannot be told from its name.
    """
    filesystem, full = locate(data, path)
    infos = sorted(_list(filesystem, full), key=lambda info: info.path)
    if not infos:
        raise DataError(
            f"{key}: {full} does not exist or holds no readable file; check {key} ({path!r}) and data ({data!r})"
        )
    return [
        Source(filesystem, info.path, format_of(info.path, key), index, info.size or 0)
        for index, info in enumerate(infos)
    ]


def format_of(path: str, key: str = "input") -> str:
    """The format that a file's name tells: the extension, a compression suffix aside.

    >>> format_of("reviews.JSONL.gz")
    'json'
    """
    name = path.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    suffix = Path(name).suffix
    if suffix not in FORMATS:
        raise DataError(f"{key}: {path}: unknown format {suffix!r}; known: {', '.join(FORMATS)}, each also as .gz")
    return FORMATS[suffix]


def input_fingerprint(data: str, paths: Iterable[str | None]) -> str:
    """Identity of input files by path, size and time of change: cheap, and enough to see that a log was replaced."""
    digest = hashlib.sha256()
    for path in paths:
        if path is None:
            continue
        filesystem, full = locate(data, path)
        for info in sorted(_list(filesystem, full), key=lambda info: info.path):
            digest.update(f"{info.path}\0{info.size}\0{info.mtime_ns}\n".encode())
    return digest.hexdigest()


def _list(filesystem: pafs.FileSystem, path: str) -> list[Any]:
    if _GLOB & set(path):
        return _glob(filesystem, path)
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        return [info]
    return [] if info.type == pafs.FileType.NotFound else _files(filesystem, path, recursive=True)


def _glob(filesystem: pafs.FileSystem, pattern: str) -> list[Any]:
    """Files that match; ``*`` stays within a folder, ``**`` does not."""
    segments = pattern.split("/")
    fixed = next(index for index, segment in enumerate(segments) if _GLOB & set(segment))
    deep = "**" in segments
    found = _files(filesystem, "/".join(segments[:fixed]) or ".", recursive=deep or fixed < len(segments) - 1)
    shallow = [info for info in found if deep or info.path.count("/") == pattern.count("/")]
    plain = pattern.replace("**/", "*")
    return [info for info in shallow if fnmatch.fnmatchcase(info.path, plain)]


def _files(filesystem: pafs.FileSystem, folder: str, recursive: bool) -> list[Any]:
    selector = pafs.FileSelector(folder, recursive=recursive, allow_not_found=True)
    return [
        info
        for info in filesystem.get_file_info(selector)
        if info.type == pafs.FileType.File and not info.base_name.startswith((".", "_")) and _readable(info.path)
    ]


def _readable(path: str) -> bool:
    """Whether the name says a format; a README beside the data is no error."""
    try:
        format_of(path)
    except DataError:
        return False
    return True
