"""Which histories ``distilrec serve`` takes, and whether its place for events works, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from components.artifacts.format import FILES, read_manifest
from components.errors import UserError
from components.recommender import HISTORIES_FILE
from components.schema import MANIFEST_FILE
from pipelines.served import EXPORT, RELEASES
from serve.histories.redis_events import RedisEvents
from serve.histories.source import HistorySource, is_redis
from serve.histories.store import StoreDownError

SERVING: Final = "serving"  # below a run: what its endpoint writes
PREPARE: Final = "prepare"


def find_histories(run: Path, artifact: Path, events: str | None) -> HistorySource:
    """Where the histories of `run` are.

    The base is what the artifact carries, else the run's prepared set, else nobody. Events go to `events`, else to the
    run's own folder; an artifact that was given without its run gets none, as nothing may be written into it.

    Args:
        run: what the user named.
        artifact: what that means, see `pipelines.served.find_artifact`.
        events: a folder or the address of a Redis, if the user named one.
    """
    is_run = (run / EXPORT).is_dir() or (run / RELEASES).is_dir()
    prepared = run / PREPARE
    carried = HISTORIES_FILE in read_manifest(artifact)[FILES]
    use_prepared = is_run and not carried and (prepared / MANIFEST_FILE).is_file()
    if events is not None and not is_redis(events):
        if "://" in events:
            raise UserError(
                f"--histories: give a folder, or redis://HOST:PORT/NUMBER; {events.split('://')[0]}:// is neither"
            )
        events = str(Path(events).absolute())
    if events is None and is_run:
        events = str((run / SERVING).absolute())
    return HistorySource(str(prepared.absolute()) if use_prepared else None, events)


def check_histories(source: HistorySource, artifact: Path) -> list[str]:
    """Try the histories of `source`; returns what the user should know of them.

    Raises:
        UserError: events have no place: a folder that cannot be written, a server that does not answer.
        ArtifactError: something there is damaged, or of another format version.
    """
    users = f"histories of {len(source.base(artifact)):,} users"
    store = source.open_events()
    if store is None:
        return [f"{users}; events are refused, --histories FOLDER keeps them"]
    said = [f"{users}; events are kept in {source.place}"]
    try:
        store.check()
        warning = store.persistence() if isinstance(store, RedisEvents) else None
    except StoreDownError as error:
        raise UserError(f"{error}; start it first, or name another place with --histories") from error
    finally:
        store.close()
    return said if warning is None else [*said, f"warning: {warning}"]
