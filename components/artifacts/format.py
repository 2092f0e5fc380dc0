"""The artifact folder: plain files and a manifest that seals them. Reading one runs no code of its writer.

``manifest.json`` holds the schema version, the sha256 of every file by its path, and whatever its writer records (code
version, seeds, data fingerprint, parents). A folder is written beside its place and renamed, so a half one never shows.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from components.errors import ArtifactError, StorageError
from components.schema import MANIFEST_FILE, SCHEMA_VERSION

DIGEST = "digest"  # sha256 of the manifest without this key; finds a changed byte in the manifest itself
FILES = "files"
REMEDY = (
    "the artifact is unusable as it is: copy it again from its source, or write it again with `distilrec export CONFIG`"
)


@contextmanager
def written_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that is renamed to `target` when the block ends without an error.

    Raises:
        StorageError: the place cannot be written, or the disk is full.
        ArtifactError: `target` exists already; finished artifacts are never overwritten.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise storage_error(target, error) from error
    try:
        yield folder
        folder.chmod(0o755)
        _rename(folder, target)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise ArtifactError(f"{target}: exists already and is never overwritten; choose another name") from error
        raise


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say which path could not be written and why."""
    advice = "free some space" if error.errno == errno.ENOSPC else "check the path and its permissions"
    return StorageError(f"{path}: cannot be written ({error.strerror or error}); {advice} and run the command again")


def file_hash(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of an artifact.

    Raises:
        ArtifactError: the file is missing, damaged, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing; {REMEDY}") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable as JSON ({error}); {REMEDY}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected a JSON object, found {type(content).__name__}; {REMEDY}")
    return content


def seal(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Hash every file below `folder`, write ``manifest.json`` with the hashes and `fields`, and return it."""
    files = {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_FILE
    }
    manifest = {**fields, "schema_version": SCHEMA_VERSION, FILES: files}
    manifest[DIGEST] = digest(manifest)
    write_json(folder / MANIFEST_FILE, manifest)
    return manifest


def digest(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest's content, its own digest aside; equal content gives an equal digest."""
    content = {key: value for key, value in manifest.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check ``manifest.json`` itself; the files that it names are not touched.

    Raises:
        ArtifactError: it is missing, damaged, of an unknown schema version, or names paths outside the folder.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; give the folder of an artifact, such as runs/NAME/export")
    manifest = read_json(path)
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        advice = "write the artifact again with this program, or read it with the program that wrote it"
        raise ArtifactError(f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}; {advice}")
    if DIGEST in manifest and manifest[DIGEST] != digest(manifest):
        raise ArtifactError(f"{path}: its content does not match its own digest, it was changed or damaged; {REMEDY}")
    files = manifest.get(FILES)
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise ArtifactError(f"{path}: `{FILES}` must map paths to sha256 hashes; {REMEDY}")
    for name in files:
        _inside(folder, name)
    return manifest


def verify(folder: Path, only: Iterable[str] | None = None) -> dict[str, Any]:
    """Check the manifest and the hash of its files, and return the manifest.

    Args:
        folder: an artifact.
        only: files that must be listed and are checked; all listed ones by default.

    Raises:
        ArtifactError: naming the file that is missing, changed or truncated, and what to do.
    """
    manifest = read_manifest(folder)
    files: dict[str, str] = manifest[FILES]
    for name in files if only is None else only:
        path = _inside(folder, name)
        if name not in files:
            raise ArtifactError(f"{folder / MANIFEST_FILE}: does not list {name!r}; {REMEDY}")
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; {REMEDY}")
        found = file_hash(path)
        if found != files[name]:
            raise ArtifactError(
                f"{path}: sha256 is {found[:16]}…, the manifest says {files[name][:16]}…: the file was changed,"
                f" truncated or damaged; {REMEDY}"
            )
    return manifest


def _inside(folder: Path, name: str) -> Path:
    """The path of a listed file; a name (or a link) that leaves the folder is refused."""
    pure = PurePosixPath(name)
    path = folder / pure
    escapes = pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or not pure.parts
    if escapes or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ArtifactError(f"{folder / MANIFEST_FILE}: lists {name!r}, which is outside the artifact; do not use it")
    return path
