"""``distilrec batch``: the best items for every user, written by Ray Data; a kill loses the shards in work, no more."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.artifacts.format import read_json, verify
from components.artifacts.models import read_model_config
from components.errors import UserError
from components.recommender import model_name
from components.schema import MANIFEST_FILE
from pipelines.cache import write_atomically
from pipelines.driver import holding
from pipelines.failures import failure
from pipelines.served import find_artifact
from pipelines.serving.batch_input import WORK, Users, file_key, file_users, prepared_key, prepared_users
from pipelines.serving.batch_worker import COUNTS, BatchWorker, Ranking, shard_counts, shard_name
from pipelines.stages import Progress

if TYPE_CHECKING:
    from pipelines.config import ClusterConfig

FOLDER: Final = "recommendations"
NODE: Final = "batch"
KEY: Final = "key"  # of the manifest: what the shards depend on


@dataclass(frozen=True)
class Written:
    """What `batch` did.

    Attributes:
        folder: where the shards lie.
        manifest: its ``manifest.json``.
        ranked: users that this call ranked for; the others were finished before.
    """

    folder: Path
    manifest: dict[str, Any]
    ranked: int

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"folder": str(self.folder), "ranked": self.ranked, **self.manifest}

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        found = self.manifest
        key = found[KEY]
        yield f"{found['users']:,} users, the best {key['k']} items each, by {key['model']}: {self.folder}"
        if found["fallbacks"]:
            yield f"{found['fallbacks']:,} of them without a known item: they got the most popular items"
        if found["unknown_items"]:
            yield f"{found['unknown_items']:,} entries of histories that the catalog does not hold were ignored"
        for reason, rows in found["rejected"].items():
            yield f"{rows:,} rows of the input were left out: {reason}"
        if not self.ranked:
            yield "nothing to do: all of it was finished before"
        elif found["users_per_second"]:
            yield f"{self.ranked:,} users in {found['seconds']:.1f} s: {found['users_per_second']:,.0f} users/s"


def batch(run: Path, out: Path | None, ranking: Ranking, users: Path | None, workers: int | None = None) -> Written:
    """Write the best items for every user as Parquet shards, and ``manifest.json``. A finished shard is kept.

    Args:
        run: a run or an artifact, see `pipelines.served.find_artifact`.
        out: where to; ``RUN/recommendations`` by default.
        ranking: what is ranked.
        users: histories of another origin than the run's prepared set.
        workers: processes that rank; by default one per core of this machine, or as many as a joined cluster holds.

    Raises:
        UserError: no artifact or no histories there, or `out` holds something else.
        ArtifactError: the artifact is corrupt.
        StageError: a worker failed.
    """
    if ranking.k < 1:
        raise UserError(f"k must be at least 1, got {ranking.k}")
    artifact = find_artifact(run)
    name = model_name(verify(artifact), read_model_config(artifact).kind)
    key = {"model": name, **asdict(ranking), **(file_key(users) if users else prepared_key(run, artifact))}
    target = (out or run / FOLDER).absolute()
    finished = check_target(target, key)
    if finished is not None:
        return Written(target, finished, 0)
    with holding(target) as board:
        progress = board.begin(NODE, f"{name}, k={ranking.k}")
        try:
            write_atomically(target / MANIFEST_FILE, json.dumps({KEY: key}))
            source = file_users(users, target) if users else prepared_users(run)
            written = _write(source, artifact, ranking, target, key, workers, progress)
        except Exception as error:
            raise failure(NODE, error, target) from error
        board.end(NODE, "done")
    return written


def check_target(target: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest where `target` holds exactly what is asked for, None where it is empty or not finished yet.

    Raises:
        UserError: it holds something else; the message says what differs.
    """
    if not (target / MANIFEST_FILE).is_file():
        if target.exists() and (not target.is_dir() or any(target.glob("*.parquet"))):
            raise UserError(f"{target}: exists already and holds no recommendations; choose another --out")
        return None
    found = read_json(target / MANIFEST_FILE)
    before = found.get(KEY)
    if not isinstance(before, dict):
        raise UserError(f"{target}: exists already and holds no recommendations; choose another --out")
    names = [name for name in {**key, **before} if key.get(name) != before.get(name)]
    other = [f"{name} {before.get(name)!r}, not {key.get(name)!r}" for name in names]
    if other:
        raise UserError(
            f"{target}: holds recommendations of another kind ({'; '.join(other)}); choose another --out, or delete it"
        )
    whole = "shards" in found and all((target / shard_name(shard)).is_file() for shard in range(found["shards"]))
    return found if whole else None


def _write(
    source: Users,
    artifact: Path,
    ranking: Ranking,
    target: Path,
    key: dict[str, Any],
    workers: int | None,
    progress: Progress,
) -> Written:
    """Rank for the pieces that are not there yet, then write the manifest."""
    pieces = source.pieces()
    for leftover in target.glob(".part-*"):
        leftover.unlink()
    pending = [piece for piece in pieces if not (target / shard_name(piece["shard"])).is_file()]
    total, left = (sum(piece["stop"] - piece["first"] for piece in each) for each in (pieces, pending))
    seconds = 0.0
    if pending:
        progress.note("starting Ray")
        done = _rank(pending, artifact, ranking, target, workers)
        seconds = _watch(done, progress, total, total - left)
    counts = [shard_counts(target / shard_name(piece["shard"])) for piece in pieces]
    manifest = {
        KEY: key,
        **{name: sum(count[name] for count in counts) for name in COUNTS},
        "rejected": source.rejected,
        "shards": len(pieces),
        "seconds": seconds,
        "users_per_second": left / seconds if seconds else None,
    }
    write_atomically(target / MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    shutil.rmtree(target / WORK, ignore_errors=True)
    return Written(target, manifest, left)


def _rank(
    pieces: Sequence[dict[str, Any]], artifact: Path, ranking: Ranking, target: Path, workers: int | None
) -> Iterator[dict[str, Any]]:
    """Spread the pieces over actors; yields what a worker says of each piece."""
    from pipelines.ray_session import ray_session

    with ray_session(_cluster(workers)):
        import ray.data

        done = ray.data.from_items(list(pieces), override_num_blocks=len(pieces)).map_batches(
            BatchWorker,
            fn_constructor_args=(artifact, ranking, target),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(len(pieces), workers or _default_workers())),
            num_cpus=1,
        )
        yield from done.iter_rows()


def _watch(done: Iterable[dict[str, Any]], progress: Progress, total: int, before: int) -> float:
    """Show what is done; seconds from the first piece's begin to the last one's end, without the start of Ray."""
    began, ended = float("inf"), 0.0
    for number, row in enumerate(done):
        began, ended = min(began, row["began"]), max(ended, row["ended"])
        if number == 0:  # the clock of the rate starts here
            progress.start(total, "users", before + int(row["users"]))
        else:
            progress.advance(int(row["users"]))
    return ended - began


def _cluster(workers: int | None) -> ClusterConfig:
    """One CPU beside the workers for Ray Data's own tasks."""
    from pipelines.config import ClusterConfig

    return ClusterConfig(num_cpus=max(4, (workers or _cores()) + 1), object_store_mb=128)


def _default_workers() -> int:
    from pipelines.actor_pool import available

    joined = bool(os.environ.get("RAY_ADDRESS"))
    return max(1, int(available("CPU")) - 1) if joined else _cores()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
