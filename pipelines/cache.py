"""The stage cache on disk: keys, manifests, and folders that appear whole or not at all.

A node writes to ``.partial-NAME.ATTEMPT`` beside its place; the folder gets its manifest last, then the node's name.
Every attempt has a folder of its own, because workers of a killed driver may go on writing for a moment.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.artifacts.format import DIGEST, file_hash
from components.artifacts.format import digest as manifest_digest
from components.errors import StorageError
from components.schema import MANIFEST_FILE, SCHEMA_VERSION
from pipelines.graph import Node
from pipelines.stages import EXTRA_MANIFEST_FILE, STAGES

PARTIAL_PREFIX: Final = ".partial-"
OLD_PREFIX: Final = ".old-"
WORK_FOLDER: Final = ".work"
PROVENANCE: Final = frozenset({"key", "code_version", "inputs", "fingerprint", "config", "seeds", DIGEST})


@dataclass(frozen=True)
class Stored:
    """What the run folder holds of a node.

    Attributes:
        manifest: the parsed manifest, empty where it cannot be read.
        digest: identity of what was made; see `content_digest`.
        damage: what is wrong with the folder, ``""`` where it is intact.
    """

    manifest: Mapping[str, Any]
    digest: str
    damage: str = ""

    @property
    def key(self) -> str:
        """The key under which the node was made."""
        return str(self.manifest.get("key", ""))


def canonical_json(value: Any) -> str:
    """The one spelling of a value: sorted keys, no spaces.

    >>> canonical_json({"b": 1, "a": [2.0]})
    '{"a":[2.0],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def node_key(node: Node, inputs: Mapping[str, str], fingerprint: str = "") -> str:
    """sha256 of all that decides what the node writes.

    Args:
        node: its part of the configuration and its stage's code version count.
        inputs: content digest of every input, by node name.
        fingerprint: identity of the files outside the run folder that the node reads.
    """
    identity = {
        "stage": node.stage,
        "code_version": STAGES[node.stage].code_version,
        "seed": node.seed,
        "config": node.part,
        "inputs": dict(inputs),
        "fingerprint": fingerprint,
    }
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def read_stored(folder: Path) -> Stored | None:
    """What `folder` holds, every file compared with its hash; None where nothing was finished there."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_bytes())
        files = {str(name): str(digest) for name, digest in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return Stored({}, "", f"{MANIFEST_FILE} cannot be read")
    return Stored(manifest, content_digest(manifest), _damage(folder, manifest, files))


def content_digest(manifest: Mapping[str, Any]) -> str:
    """sha256 of what a node made: its files and counts, however they came about.

    Nodes behind it run again where this changes; a new option of its stage that changes nothing does not reach them.
    """
    made = {name: value for name, value in manifest.items() if name not in PROVENANCE}
    return hashlib.sha256(canonical_json(made).encode()).hexdigest()


def sealed_digest(folder: Path) -> str:
    """The `content_digest` of a folder that was sealed just now."""
    return content_digest(json.loads((folder / MANIFEST_FILE).read_bytes()))


def _damage(folder: Path, manifest: Mapping[str, Any], files: Mapping[str, str]) -> str:
    if manifest.get("schema_version") != SCHEMA_VERSION:
        return f"schema version {manifest.get('schema_version')!r}, this program writes {SCHEMA_VERSION}"
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file_hash(file) != digest:
            return f"{name} was changed after it was written"
    if manifest.get(DIGEST) != manifest_digest(manifest):
        return f"{MANIFEST_FILE} was changed after it was written"
    return ""


def write_manifest(folder: Path, node: Node, key: str, inputs: Mapping[str, str], fingerprint: str = "") -> None:
    """Describe and seal a node's folder; no clock time goes in, so the same work gives the same bytes."""
    extra_file = folder / EXTRA_MANIFEST_FILE
    extra = json.loads(extra_file.read_text(encoding="utf-8")) if extra_file.is_file() else {}
    extra_file.unlink(missing_ok=True)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    manifest = {
        **extra,
        "schema_version": SCHEMA_VERSION,
        "stage": node.stage,
        "key": key,
        "code_version": STAGES[node.stage].code_version,
        "inputs": dict(inputs),
        "fingerprint": fingerprint,
        "config": node.part,
        "files": {name: file_hash(folder / name) for name in names if name != MANIFEST_FILE},
        "seeds": [node.seed],
    }
    manifest[DIGEST] = manifest_digest(manifest)
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST_FILE, text)


def write_atomically(file: Path, text: str) -> None:
    """Write a file that appears whole or not at all, and survives a power cut."""
    beside = file.with_name(f".{file.name}.new")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(file)


def make_partial(folder: Path) -> Path:
    """A new folder where one attempt at a node writes until it is done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{PARTIAL_PREFIX}{folder.name}.", dir=folder.parent))


def publish(partial: Path, folder: Path) -> None:
    """Rename a sealed partial folder into its place; a folder that stood there goes."""
    old = folder.with_name(OLD_PREFIX + folder.name)
    shutil.rmtree(old, ignore_errors=True)
    partial.chmod(0o755)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put in order what a killed driver left: publish a sealed partial folder, remove the rest."""
    for partial in folder.parent.glob(f"{PARTIAL_PREFIX}{glob.escape(folder.name)}.*"):
        stored = read_stored(partial)
        if stored is not None and not stored.damage:
            publish(partial, folder)
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(folder.with_name(OLD_PREFIX + folder.name), ignore_errors=True)


def work_folder(run: Path, node: Node, key: str) -> Path:
    """The node's folder for checkpoints, made where it is missing; those of other keys are removed."""
    above = run / WORK_FOLDER / node.name.replace("/", "--")
    chosen = above / key[:16]
    for other in above.glob("*"):
        if other != chosen:
            shutil.rmtree(other, ignore_errors=True)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into an error that names the place and the space that is left.

    Raises:
        StorageError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        problem = storage_problem(error, folder)
        if problem is None:
            raise
        raise problem from error


def storage_problem(error: OSError, folder: Path) -> StorageError | None:
    """The StorageError that `error` means, None where it means something else."""
    place = Path(error.filename or folder)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(_existing_parent(folder)).free / 2**20
        return StorageError(
            f"{place}: the disk is full ({free:,.0f} MiB free); make room, or set output= to another disk, then run "
            "the same command again: finished stages are kept"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR) and place.is_relative_to(folder):
        return StorageError(f"{place}: cannot write: {error.strerror}; check the permissions or set output=")
    return None


def _existing_parent(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
