"""The identity of files outside the run folder, so that changed logs are prepared again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow.fs as pafs

from components.artifacts.format import file_hash
from components.data.item_images import image_files
from components.data.sources import Source, find_sources
from components.errors import DataError
from components.schema import MANIFEST_FILE, MODEL_FILE
from pipelines.cache import canonical_json

if TYPE_CHECKING:
    from pipelines.config import RunConfig, TeacherConfig
    from pipelines.graph import Node

MAX_HASHED_BYTES: Final = 256 * 2**20  # larger files are known by size and time of change
MISSING: Final = "missing"


def fingerprints(config: RunConfig, nodes: Iterable[Node]) -> dict[str, str]:
    """Fingerprint of every node that reads files outside the run folder, by node name."""
    found = {}
    for node in nodes:
        if node.stage == "prepare":
            source = config.source(node.domain)
            paths = [source.input.interactions, source.input.items, source.input.users]
            found[node.name] = data_fingerprint(source.data, [path for path in paths if path], source.input.images)
        elif node.stage in ("teach", "pretrain"):
            files = list(_files_of(config.teachers[node.suffix]))
            if files:
                found[node.name] = _digest([file_hash(file) for file in files])
        elif "start" in node.part and (Path(node.part["start"]) / MODEL_FILE).is_file():
            found[node.name] = file_hash(Path(node.part["start"]) / MODEL_FILE)
    return found


def _files_of(teacher: TeacherConfig) -> Iterator[Path]:
    """Files of a teacher that was trained, or pre-trained, elsewhere, or starts from the user's own language model."""
    values = [value for value in teacher.arguments.values() if isinstance(value, str)]
    if isinstance(teacher.pretrained, str):
        values.append(f"{teacher.pretrained}/{MANIFEST_FILE}")
    yield from (Path(value) for value in values if Path(value).is_file())
    backbone = teacher.arguments.get("backbone")  # a folder, or a name
    yield from sorted(file for file in (Path(backbone).glob("*") if backbone else ()) if file.is_file())


def data_fingerprint(data: str, paths: Iterable[str], images: str | None = None) -> str:
    """sha256 over place below `data`, size and content of every file that `paths` and `images` mean.

    A path that means no file is part of the identity: the stage that reads it says what is wrong. Files that an item
    table names by path are no part of it.
    """
    identities = [_identities(path, lambda path: find_sources(data, path, "input")) for path in paths]
    if images:
        identities.append(_identities(images, lambda path: image_files(data, path)))
    return _digest(identities)


def _identities(path: str, find: Callable[[str], list[Source]]) -> list[list[str | int]]:
    try:
        return [_identity(source) for source in find(path)]
    except DataError:
        return [[path, MISSING]]


def _identity(source: Source) -> list[str | int]:
    """Name and size, and the content where it is cheap to read, else the time of change."""
    name = Path(source.path).name
    if isinstance(source.filesystem, pafs.LocalFileSystem) and source.size <= MAX_HASHED_BYTES:
        return [name, source.size, file_hash(Path(source.path))]
    return [name, source.size, source.filesystem.get_file_info(source.path).mtime_ns]


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
