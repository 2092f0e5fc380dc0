"""What a job takes along: the working folder without what does not belong on a cluster, and our own packages.

The files are gathered in a folder of their own first, so that what is uploaded is exactly what was counted.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from components.errors import UserError

PACKAGES: Final = ("components", "pipelines", "serve", "tune_spaces")
ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT_BYTES: Final = 100 * 2**20  # it goes through the head node's memory; data belong on shared storage
LIMIT_FILES: Final = 20_000
TOP_ONLY: Final = (
    "runs",
    "data",
    "demo-data",
    "releases",
    "build",
    "dist",
    *PACKAGES,
)  # the packages come by themselves
ANYWHERE: Final = (
    *(".git", ".hg", ".venv", "venv", ".envs", "node_modules", "__pycache__", ".cache", ".*_cache", ".hypothesis"),
    *("*.pyc", "*.egg-info", ".gitignore", ".rayignore"),  # Ray would leave out what these name
)
SECRET: Final = (
    *(".env", ".env.*", "*.pem", "*.key", "*.p12", "id_rsa*", "id_ed25519*", "auth_token", "*.token", "*.secret"),
    *(".aws", ".ssh", ".ray", ".kube", ".netrc", ".pypirc", "*credentials*.json", "kubeconfig"),
)


@dataclass(frozen=True)
class UploadFile:
    """One file: where it lies, its name in the upload, its bytes."""

    path: Path
    name: str
    size: int


def gather(folder: Path, excludes: Iterable[str] = ()) -> list[UploadFile]:
    """The files of the working folder that a job takes along, and our packages.

    Args:
        folder: the working folder.
        excludes: further patterns, of names anywhere or of paths below `folder`, such as
            ``notebooks`` or ``logs/*.txt``.

    Raises:
        UserError: they are too many or too large; it names the largest folders.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no folder; give --working-dir a folder that holds CONFIG")
    root = folder.resolve()
    patterns = (*ANYWHERE, *SECRET, *excludes)
    files: list[UploadFile] = []
    for name in PACKAGES:
        files += (
            UploadFile(path, path.relative_to(ROOT).as_posix(), size) for path, size in _walk(ROOT / name, ROOT, ())
        )
    own = len(files)
    for path, size in _walk(root, root, patterns):
        files.append(UploadFile(path, path.relative_to(root).as_posix(), size))
        if len(files) - own > LIMIT_FILES:
            raise UserError(_too_much(root, files[own:], f"more than {LIMIT_FILES:,} files"))
    total = sum(file.size for file in files)
    if total > LIMIT_BYTES:
        raise UserError(_too_much(root, files, f"{_size(total)}"))
    return files


def stage(files: Iterable[UploadFile], folder: Path) -> None:
    """Copy the files into `folder`."""
    for file in files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.path, target)


def _walk(folder: Path, root: Path, patterns: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    """Files below `folder` and their bytes; what is excluded is not entered. Links that leave `root` are left out."""
    for where, folders, names in os.walk(folder):
        here = Path(where)
        inside = here.relative_to(root).as_posix()
        folders[:] = sorted(name for name in folders if not _excluded(name, inside, patterns))
        for name in sorted(names):
            path = here / name
            if _excluded(name, inside, patterns) or (path.is_symlink() and not path.resolve().is_relative_to(root)):
                continue
            if path.is_file():
                yield path, path.stat().st_size


def _excluded(name: str, inside: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name in the folder `inside` stays here; our own packages hold no secrets and only caches stay."""
    if not patterns:
        return name == "__pycache__"
    if inside == "." and name in TOP_ONLY:
        return True
    path = name if inside == "." else f"{inside}/{name}"
    return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _too_much(root: Path, files: list[UploadFile], found: str) -> str:
    sizes: Counter[str] = Counter()
    for file in files:
        top, _, rest = file.name.partition("/")
        sizes[f"{top}/" if rest else top] += file.size
    largest = ", ".join(f"{name} ({_size(size)})" for name, size in sizes.most_common(3))
    return (
        f"{root}: a job would take {found} along, at most {_size(LIMIT_BYTES)} and {LIMIT_FILES:,} files are sensible; "
        f"largest: {largest}. Move data to a path that all nodes see or to s3:// or gs://, or leave out what the run "
        "does not need: --exclude PATTERN"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
