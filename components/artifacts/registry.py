"""A folder of releases: sealed artifacts in ``ROOT/NAME/VERSION/``; ``ROOT/NAME/current.json`` names what serves."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts.format import read_json, read_manifest, storage_error, verify, write_json, written_folder
from components.errors import ArtifactError, UnknownNameError, UserError

POINTER = "current.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VERSION = re.compile(r"v[0-9]{4,}")


@dataclass(frozen=True)
class Release:
    """One version of one name.

    Attributes:
        name: what is released, such as ``"movielens"``.
        version: ``"v0001"`` and on, ascending.
        path: the artifact.
        current: whether it is the one that serves.
    """

    name: str
    version: str
    path: Path
    current: bool

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the artifact."""
        return read_manifest(self.path)


class Registry:
    """Releases below one folder. Versions are never changed or reused; only the pointer moves.

    Args:
        root: the folder; made by the first `put`.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        """Names that have a release, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if self._versions(entry.name))

    def releases(self, name: str) -> list[Release]:
        """All versions of `name`, oldest first; empty for a name without one."""
        current = self._pointer(_checked(name))
        return [
            Release(name, version, self.root / name / version, version == current) for version in self._versions(name)
        ]

    def put(self, name: str, artifact: Path, *, promote: bool = True) -> Release:
        """Verify `artifact`, copy it in as the next version, and (by default) make it the current one.

        Raises:
            ArtifactError: the artifact is corrupt; nothing is copied.
            StorageError: the copy cannot be written.
        """
        versions = self._versions(_checked(name))
        files = verify(artifact)["files"]
        version = f"v{int(versions[-1][1:]) + 1 if versions else 1:04d}"
        with written_folder(self.root / name / version) as folder:
            for file in [*files, "manifest.json"]:  # only what the manifest vouches for
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artifact / file, folder / file)
            verify(folder)
        if promote:
            self.promote(name, version)
        return self.get(name, version)

    def get(self, name: str, version: str = "current") -> Release:
        """One release by version, or the current one.

        Raises:
            UnknownNameError: no such name or version.
            UserError: the name has releases, none of them current.
        """
        releases = {release.version: release for release in self.releases(name)}
        if not releases:
            raise UnknownNameError("release", name, self.names())
        if version == "current":
            current = [release for release in releases.values() if release.current]
            if not current:
                raise UserError(f"release {name!r} has no current version; promote one of {', '.join(releases)}")
            return current[0]
        if version not in releases:
            raise UnknownNameError(f"version of {name!r}", version, releases)
        return releases[version]

    def promote(self, name: str, version: str) -> Release:
        """Make `version` the current one; a rollback is the promotion of an older version."""
        release = self.get(name, version)
        verify(release.path)
        pointer = self.root / name / POINTER
        beside = pointer.with_name(f".{POINTER}-{os.getpid()}")
        try:
            write_json(beside, {"version": release.version})
            beside.replace(pointer)
        except OSError as error:
            raise storage_error(pointer, error) from error
        return self.get(name, version)

    def _versions(self, name: str) -> list[str]:
        folder = self.root / name
        if not folder.is_dir():
            return []
        return sorted((e.name for e in folder.iterdir() if _VERSION.fullmatch(e.name)), key=lambda v: int(v[1:]))

    def _pointer(self, name: str) -> str | None:
        path = self.root / name / POINTER
        if not path.is_file():
            return None
        version = read_json(path).get("version")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise ArtifactError(f"{path}: `version` must be a version such as 'v0001', found {version!r}; promote one")
        return version


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"release name {name!r} is not usable; use at most 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit"
        )
    return name
