"""The driver's side of a run in an object store: a local folder to work in, results sent as they are finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from components.errors import StorageError, UserError
from components.schema import MANIFEST_FILE
from pipelines.cache import Stored, content_digest, publish, read_stored
from pipelines.keeper import Keeper
from pipelines.storage.exchange import Exchange
from pipelines.storage.lease import lease
from pipelines.storage.place import is_remote
from pipelines.storage.remote import Remote

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.graph import Node

RUN_FILES: Final = ("leaderboard.json", "report.html")
LOGS: Final = "logs"


class RemoteKeeper(Keeper):
    """Keeps a run in an object store.

    Args:
        remote: of the run.
        run: the local folder of the run.
    """

    def __init__(self, remote: Remote, run: Path) -> None:
        self._remote, self._run = remote, run

    def stored(self, nodes: Sequence[Node]) -> dict[str, Stored]:
        """See `Keeper.stored`; nodes that only the run folder has are sent."""
        found = {}
        for node in nodes:
            here, there = read_stored(self._run / node.folder), self._manifest(node.folder)
            if there is not None and (here is None or here.damage or here.digest != there.digest):
                found[node.name] = there
            elif there is None and here is not None and not here.damage:
                self.keep(node.folder)
        return found

    def listed(self, nodes: Sequence[Node]) -> dict[str, Stored]:
        """Nodes that the storage holds, by name."""
        found = {node.name: self._manifest(node.folder) for node in nodes}
        return {name: stored for name, stored in found.items() if stored is not None}

    def fetch(self, folder: str) -> None:
        """See `Keeper.fetch`.

        Raises:
            StorageError: what lies there is damaged.
        """
        here, there = read_stored(self._run / folder), self._manifest(folder)
        if there is None or (here is not None and not here.damage and here.digest == there.digest):
            return
        partial = self._run / ".fetched" / folder
        shutil.rmtree(partial, ignore_errors=True)
        self._remote.fetch(folder, partial)
        got = read_stored(partial)
        if got is None or got.damage:
            raise StorageError(
                f"{self._remote.uri}/{folder}: {got.damage if got else 'incomplete'}; delete its {MANIFEST_FILE}, "
                "then run "
                "the same command again: it is made anew"
            )
        (self._run / folder).parent.mkdir(parents=True, exist_ok=True)
        publish(partial, self._run / folder)

    def keep(self, folder: str) -> None:
        """See `Keeper.keep`."""
        self._remote.put(self._run / folder, folder)

    def _manifest(self, folder: str) -> Stored | None:
        content = self._remote.read(f"{folder}/{MANIFEST_FILE}")
        if content is None:
            return None
        try:
            manifest = json.loads(content)
        except ValueError:
            return None  # half a manifest is none
        return Stored(manifest, content_digest(manifest))


@contextmanager
def keeping(config: RunConfig) -> Iterator[Keeper]:
    """Hold a run's storage: yields what keeps the results.

    Raises:
        StorageError: the storage cannot be written.
        UserError: another driver works on this run.
    """
    if not is_remote(config.output):
        yield Keeper()
        return
    remote, run = Remote(config.place), config.folder.absolute()
    with lease(remote):
        Exchange.begin(remote.uri, run)
        remote.fetch(f"{LOGS}/timing", run / LOGS / "timing")
        try:
            yield RemoteKeeper(remote, run)
        finally:
            _send_texts(remote, run)


def _send_texts(remote: Remote, run: Path) -> None:
    """Leaderboard, report and logs: what people look at, finished or not."""
    logs = [path for path in (run / LOGS).rglob("*") if path.is_file()]
    for file in (*logs, *(run / name for name in RUN_FILES)):
        if file.is_file():
            remote.upload(file, file.relative_to(run).as_posix())


def fetch_run(uri: str, folder: Path) -> list[str]:
    """Copy a run from its storage to `folder`; returns the names of its finished nodes.

    Raises:
        UserError: nothing is there, or `folder` holds something else.
        StorageError: what lies there is damaged.
    """
    remote = Remote(uri.rstrip("/"))
    names = {name for name in remote.files() if not name.startswith(".")}
    nodes = sorted(name.removesuffix(f"/{MANIFEST_FILE}") for name in names if name.endswith(f"/{MANIFEST_FILE}"))
    if not nodes:
        raise UserError(f"{uri}: holds no run; give the folder of one run, such as s3://BUCKET/runs/NAME")
    if folder.exists() and not (folder / LOGS).is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds something else; choose another folder")
    for name in sorted(names):
        remote.download(name, folder / name)
    for node in nodes:
        stored = read_stored(folder / node)
        if stored is None or stored.damage:
            raise StorageError(f"{uri}/{node}: {stored.damage if stored else 'incomplete'}; run it again there")
    return nodes
