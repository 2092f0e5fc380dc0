"""The process that ranks for pieces of the users; a Ray Data actor, and usable without Ray."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from components.bulk import BulkRecommender, Histories
from components.schema import ITEMS, USER, USER_ID
from pipelines.serving.batch_input import HISTORY, read_piece

SCHEMA: Final = pa.schema(
    {
        USER_ID: pa.string(),
        ITEMS: pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
        "fallback": pa.string(),
    }
)
COUNTS: Final = ("users", "fallbacks", "unknown_items")


@dataclass(frozen=True)
class Ranking:
    """What is ranked for everybody.

    Attributes:
        k: items per user.
        exclude_seen: leave out the items of the history.
        reproducible: as the endpoint, to the last bit.
    """

    k: int = 100
    exclude_seen: bool = True
    reproducible: bool = False


class BatchWorker:
    """Loads the artifact once; every call ranks for the pieces of a batch and writes a shard for each.

    Args:
        artifact: folder.
        ranking: what is ranked.
        target: folder of the shards.
    """

    def __init__(self, artifact: Path, ranking: Ranking, target: Path) -> None:
        torch.set_num_threads(1)
        self.recommender = BulkRecommender(artifact, reproducible=ranking.reproducible)
        self.ranking, self.target = ranking, target

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Pieces -> their users, and when the work on each began and ended (seconds since the epoch)."""
        pieces = zip(*(batch[name].tolist() for name in ("file", "first", "stop", "shard")), strict=True)
        done = [self.rank(Path(file), first, stop, shard) for file, first, stop, shard in pieces]
        return {name: np.array([row[name] for row in done]) for name in ("users", "began", "ended")}

    def rank(self, file: Path, first: int, stop: int, shard: int) -> dict[str, float]:
        """Write one shard; it appears whole or not at all."""
        began = time.time()
        partial = self.target / f".{shard_name(shard)}.{os.getpid()}"
        counts = dict.fromkeys(COUNTS, 0)
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            for users in read_piece(file, first, stop):
                ranked, unknown = self.table(users)
                writer.write_table(ranked)
                counts["users"] += len(ranked)
                counts["fallbacks"] += len(ranked) - ranked["fallback"].null_count
                counts["unknown_items"] += unknown
            writer.add_key_value_metadata({name: str(value) for name, value in counts.items()})
        partial.replace(self.target / shard_name(shard))
        return {"users": counts["users"], "began": began, "ended": time.time()}

    def table(self, users: pa.Table) -> tuple[pa.Table, int]:
        """The rows of a shard for some users, and how many ids of their histories are not in the catalog."""
        if HISTORY in users.column_names:
            histories, unknown = self.recommender.numbered(users[HISTORY].combine_chunks())
        else:
            histories, unknown = _numbers(users), 0
        columns = self.recommender.recommend(histories, self.ranking.k, self.ranking.exclude_seen)
        return pa.table({USER_ID: users[USER_ID].cast(pa.string()), **columns}, schema=SCHEMA), unknown


def _numbers(users: pa.Table) -> Histories:
    """Histories of a prepared set."""
    lists = users[ITEMS].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return Histories(lists.flatten().to_numpy(), offsets - offsets[0], users[USER].to_numpy().astype(np.int64))


def shard_name(shard: int) -> str:
    """The file of a shard."""
    return f"part-{shard:05d}.parquet"


def shard_counts(file: Path) -> dict[str, int]:
    """What its writer counted."""
    found = pq.read_metadata(file).metadata
    return {name: int(found[name.encode()]) for name in COUNTS}
