"""The driver's side of a run in an object store: a local folder to work in, results sent as they are finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from components.errors import StorageError
from components.schema import MANIFEST_FILE
from pipelines.cache import Stored, content_digest, publish, read_stored
from pipelines.keeper import Keeper
from pipelines.storage.exchange import Exchange, scratch
from pipelines.storage.lease import lease
from pipelines.storage.remote import Remote, is_remote

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


def kept_locally(config: RunConfig) -> RunConfig:
    """The configuration with runs in a folder of this machine; unchanged where `output` is a path."""
    if not is_remote(config.output):
        return config
    place = hashlib.sha256(config.output.rstrip("/").encode()).hexdigest()[:16]
    return config.model_copy(update={"output": str(scratch() / "runs" / place)})


@contextmanager
def keeping(config: RunConfig) -> Iterator[tuple[RunConfig, Keeper]]:
    """Hold a run's storage: yields the configuration to work with, and what keeps the results.

    Raises:
        StorageError: the storage cannot be written.
        UserError: another driver works on this run.
    """
    if not is_remote(config.output):
        yield config, Keeper()
        return
    local, remote = kept_locally(config), Remote(f"{config.output.rstrip('/')}/{config.name}")
    run = local.folder.absolute()
    with lease(remote):
        Exchange.begin(remote.uri, run)
        remote.fetch(f"{LOGS}/timing", run / LOGS / "timing")
        try:
            yield local, RemoteKeeper(remote, run)
        finally:
            _send_texts(remote, run)


def _send_texts(remote: Remote, run: Path) -> None:
    """Leaderboard, report and logs: what people look at, finished or not."""
    logs = [path for path in (run / LOGS).rglob("*") if path.is_file()]
    for file in (*logs, *(run / name for name in RUN_FILES)):
        if file.is_file():
            remote.upload(file, file.relative_to(run).as_posix())
