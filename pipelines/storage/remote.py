"""Folders in an object store, or on any other filesystem of pyarrow: put, fetched, listed; the manifest always last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from components.errors import StorageError
from components.schema import MANIFEST_FILE

THREADS: Final = 8  # files that travel at once
CHUNK: Final = 4 * 2**20
TIMEOUT: Final = 10.0  # seconds to connect
ATTEMPTS: Final = 3
HELP: Final = (
    "check the bucket's name, and that every node of the cluster may read and write it (instance role, service "
    "account, "
    "AWS_* or GOOGLE_APPLICATION_CREDENTIALS there; AWS_ENDPOINT_URL where it is not Amazon's)"
)


def open_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path on it; one that does not answer is given up after seconds.

    Raises:
        StorageError: there is no such filesystem.
    """
    parts = urlsplit(uri)
    path = f"{parts.netloc}{parts.path}".rstrip("/")
    try:
        if parts.scheme == "s3":
            return pafs.S3FileSystem(**_s3_options(parts.query, os.environ)), path
        if parts.scheme in ("gs", "gcs"):
            return pafs.GcsFileSystem(retry_time_limit=timedelta(seconds=TIMEOUT * ATTEMPTS)), path
        found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(uri)
        return found
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageError(f"{uri}: no such storage: {error}; use a path that all nodes see, s3:// or gs://") from error


def _s3_options(query: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What `S3FileSystem` takes: the URI's query first, then the usual variables of Amazon's tools."""
    asked = {key: values[-1] for key, values in parse_qs(query).items()}
    endpoint = (
        asked.get("endpoint_override") or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    )
    region = asked.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    options: dict[str, Any] = {
        "allow_delayed_open": True,  # a small file is one request, not three
        "connect_timeout": TIMEOUT,
        "request_timeout": 6 * TIMEOUT,
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    }
    if endpoint:
        options["endpoint_override"] = endpoint
        options["region"] = region or "us-east-1"
    elif region:
        options["region"] = region
    return options


@dataclass(frozen=True)
class Remote:
    """Everything below one URI, by names such as ``prepare/items.parquet``. Small: it travels to workers as its URI."""

    uri: str

    def __post_init__(self) -> None:
        filesystem, root = open_filesystem(self.uri)
        object.__setattr__(self, "_filesystem", filesystem)
        object.__setattr__(self, "_root", root)

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.uri,)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """Pyarrow's."""
        return self._filesystem  # type: ignore[attr-defined]

    def path(self, name: str = "") -> str:
        """Where `name` lies on the filesystem."""
        root: str = self._root  # type: ignore[attr-defined]
        return f"{root}/{name}" if name else root

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""
        with self._errors("read", name):
            if self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.File:
                return None
            with self.filesystem.open_input_stream(self.path(name)) as stream:
                content: bytes = stream.read()
                return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; it appears whole."""
        with self._errors("write", name):
            self._make_parent(name)
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(content)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._errors("write", name):
            if self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File:
                self.filesystem.delete_file(self.path(name))

    def files(self, name: str = "") -> dict[str, int]:
        """Sizes of the files below a folder, by their names below it."""
        with self._errors("list", name):
            selector = pafs.FileSelector(self.path(name), recursive=True, allow_not_found=True)
            found = self.filesystem.get_file_info(selector)
        start = len(self.path(name)) + 1
        return {info.path[start:]: int(info.size or 0) for info in found if info.type == pafs.FileType.File}

    def changed(self, name: str) -> float | None:
        """When a file was written, in seconds, by the clock of the storage; None where it is not there."""
        with self._errors("read", name):
            info = self.filesystem.get_file_info(self.path(name))
            return info.mtime_ns / 1e9 if info.type == pafs.FileType.File else None

    def put(self, folder: Path, name: str) -> None:
        """Replace a folder: its old manifest goes first, the new one comes last: it is whole or not there."""
        local = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        self.delete(f"{name}/{MANIFEST_FILE}")
        for old in self.files(name).keys() - local.keys():
            self.delete(f"{name}/{old}")
        manifest = local.pop(MANIFEST_FILE, None)
        self._each(lambda file: self.upload(local[file], f"{name}/{file}"), local)
        if manifest:
            self.upload(manifest, f"{name}/{MANIFEST_FILE}")

    def fetch(self, name: str, folder: Path) -> None:
        """Copy what lies below a folder into `folder`; files that are there already are replaced."""
        self._each(lambda file: self.download(f"{name}/{file}", folder / file), self.files(name))

    def remove(self, name: str) -> None:
        """Remove all files below a folder."""
        self._each(lambda file: self.delete(f"{name}/{file}"), self.files(name))

    def upload(self, file: Path, name: str) -> None:
        """Copy one file there."""
        with self._errors("write", name):
            self._make_parent(name)
            with file.open("rb") as source, self.filesystem.open_output_stream(self.path(name)) as target:
                shutil.copyfileobj(source, target, CHUNK)

    def download(self, name: str, file: Path) -> None:
        """Copy one file here; it appears whole."""
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}.new")
        path = self.path(name)
        with self._errors("read", name), self.filesystem.open_input_stream(path) as source, beside.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
        beside.replace(file)

    def _make_parent(self, name: str) -> None:
        """Folders exist by themselves in object stores; elsewhere they are made."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            self.filesystem.create_dir(self.path(name).rpartition("/")[0], recursive=True)

    def _each(self, act: Any, names: Any) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(act, sorted(names)):
                pass

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise StorageError(f"{self.uri}: cannot {verb} {name or 'it'}: {reason}; {HELP}") from error
