"""Files of a run on nodes that do not share the driver's disk: fetched before a task, sent back after it.

The driver works in a folder of its own machine and sends every finished node to the storage. A task receives paths
below that folder. Where its own machine has the very same folder it uses them as they are. Elsewhere it fetches what it
reads, writes to a fresh folder, and sends that to the storage, from where the driver takes it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.schema import MANIFEST_FILE
from pipelines.storage.place import own_scratch, scratch
from pipelines.storage.remote import Remote

NOTE: Final = ".storage.json"  # in the driver's run folder: where the run is kept, and a mark that no other disk has
SENT: Final = ".exchange"  # in the storage: what tasks wrote and the driver has not taken yet


@dataclass(frozen=True)
class Exchange:
    """How a task on any node finds a run's files.

    Attributes:
        uri: where the run is kept.
        run: the driver's folder of it.
        mark: what the note in that folder says on the driver's disk.
    """

    uri: str
    run: Path
    mark: str

    @staticmethod
    def begin(uri: str, run: Path) -> None:
        """Note in the driver's run folder where the run is kept."""
        own_scratch()
        run.mkdir(parents=True, exist_ok=True)
        (run / NOTE).write_text(json.dumps({"uri": uri, "mark": uuid.uuid4().hex}), encoding="utf-8")

    @staticmethod
    def of(folder: Path) -> Exchange | None:
        """The exchange of the run that `folder` belongs to; None where the run lies on a path that all nodes see."""
        for run in (folder, *folder.parents):
            if (run / NOTE).is_file():
                return Exchange(**json.loads((run / NOTE).read_text(encoding="utf-8")), run=run)
        return None

    @property
    def is_here(self) -> bool:
        """Whether this node works on the driver's disk."""
        note = self.run / NOTE
        return (
            self.run.is_relative_to(scratch())
            and note.is_file()
            and json.loads(note.read_text(encoding="utf-8"))["mark"] == self.mark
        )

    def ray_path(self, work: Path) -> str:
        """Where Ray Train may keep the checkpoints of a job, on the storage's own filesystem."""
        return Remote(self.uri).path(f"{SENT}/ray-train/{work.parent.name}")

    def forget(self, work: Path) -> None:
        """On the driver: remove the checkpoints of a job that is done, those of earlier configurations among them."""
        remote = Remote(self.uri)
        for name in (self._name(work.parent), f"{SENT}/ray-train/{work.parent.name}"):
            remote.remove(name)

    def collect(self, folder: Path) -> None:
        """On the driver: take what tasks wrote for `folder`."""
        remote, name = Remote(self.uri), f"{SENT}/{self._name(folder)}"
        remote.fetch(name, folder)
        remote.remove(name)

    def save(self, folder: Path) -> None:
        """In a task: send a folder that must survive this node, such as checkpoints; replaces what was sent before."""
        if not self.is_here:
            Remote(self.uri).put(folder, str(folder.relative_to(self._own)))

    @property
    def _own(self) -> Path:
        """This node's folder for the run."""
        return own_scratch() / hashlib.sha256(self.uri.encode()).hexdigest()[:16]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.run).as_posix()

    def fetched(self, path: Path) -> Path:
        """This node's copy of a path of the run, fetched where it is missing or old."""
        remote, name = Remote(self.uri), self._name(path)
        node, manifest = _node_of(remote, name)
        if manifest is None:  # no node's result: checkpoints, which only one task at a time has
            target = self._own / name
            remote.fetch(name, target)
            target.mkdir(parents=True, exist_ok=True)
            return target
        target = self._own / "nodes" / hashlib.sha256(manifest).hexdigest()[:16] / node
        with _locked(target):
            if not (target / MANIFEST_FILE).is_file():
                partial = target.with_name(f".partial-{target.name}")
                shutil.rmtree(partial, ignore_errors=True)
                remote.fetch(node, partial)
                partial.rename(target)
        return target if node == name else target / name.removeprefix(f"{node}/")


def _node_of(remote: Remote, name: str) -> tuple[str, bytes | None]:
    """The finished folder that holds `name`, and its manifest."""
    node = name
    while node:
        if manifest := remote.read(f"{node}/{MANIFEST_FILE}"):
            return node, manifest
        node = node.rpartition("/")[0]
    return name, None


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Tasks of one node fetch a folder once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def borrowed(exchange: Exchange | None, value: Any, writes: Path | None = None) -> Iterator[Any]:
    """In a task: `value` with all paths of the run in it such that they lie on this node.

    Args:
        exchange: of the run; None leaves everything as it is.
        value: paths, or dataclasses, mappings, lists and tuples of them.
        writes: folder of the run that the task writes to; what it wrote is sent when the block ends without an error.
    """
    if exchange is None or exchange.is_here:
        yield value
        return
    exchange._own.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="out-", dir=exchange._own))

    def move(path: Path) -> Path:
        if not path.is_relative_to(exchange.run):
            return path
        if writes is not None and path.is_relative_to(writes):
            return fresh / path.relative_to(writes)
        return exchange.fetched(path)

    try:
        yield relocated(value, move)
        if writes is not None:
            name = f"{SENT}/{exchange._name(writes)}"
            remote = Remote(exchange.uri)
            for file in sorted(path for path in fresh.rglob("*") if path.is_file()):
                remote.upload(file, f"{name}/{file.relative_to(fresh).as_posix()}")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def relocated(value: Any, move: Callable[[Path], Path]) -> Any:
    """`value` with `move` applied to every path in it.

    >>> relocated({"a": [Path("/x")], "b": 1}, lambda path: Path("/y") / path.name)
    {'a': [PosixPath('/y/x')], 'b': 1}
    """
    if isinstance(value, Path):
        return move(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: relocated(getattr(value, field.name), move) for field in dataclasses.fields(value) if field.init
        }
        return dataclasses.replace(value, **changed)
    if isinstance(value, Mapping):
        return {key: relocated(inner, move) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(relocated(inner, move) for inner in value)
    return value


def call(exchange: Exchange | None, writes: Path | None, function: Callable[..., Any], *arguments: Any) -> Any:
    """In a task: `function` of `arguments`, with the run's files on this node; see `borrowed`."""
    with borrowed(exchange, arguments, writes) as moved:
        return function(*moved)
