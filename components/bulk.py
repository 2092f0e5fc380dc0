"""An exported artifact that ranks for many users at once, in Arrow columns: the endpoint's rankings, faster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.artifacts.format import verify
from components.artifacts.models import load_model, read_model_config
from components.inference import Scorer
from components.layers.onednn import use_onednn
from components.recommender import POPULARITY, model_name
from components.schema import COUNT, ITEM_ID, ITEMS_FILE, PAD

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """Item numbers of several users, end to end; user ``i`` has ``items[offsets[i] : offsets[i + 1]]``, oldest first.

    Attributes:
        items: (I,) numbers of the artifact's catalog, 1..N.
        offsets: (U + 1,).
        users: (U,) the model's user numbers, 0 where unknown.
    """

    items: NDArray[np.int32]
    offsets: IntArray
    users: IntArray

    def __len__(self) -> int:
        return len(self.users)


class BulkRecommender:
    """An artifact, ready to rank for users by the thousand.

    Its rankings are those of `components.recommender.Recommender`. With `reproducible` they are so to the last bit.
    Without, scores differ in their last bits (relatively some 1e-6), since many histories share a matrix product, and
    items whose scores are that close may change places; it is about three times faster.

    Args:
        folder: the artifact; it is checked against its manifest first.
        reproducible: pay for equality to the last bit.

    Attributes:
        name: of the model, with its version.
        num_items: of the catalog.

    Raises:
        ArtifactError: the artifact is corrupt or incomplete; the message names the file.
    """

    def __init__(self, folder: Path, *, reproducible: bool = False) -> None:
        manifest = verify(folder)
        self.name = model_name(manifest, read_model_config(folder).kind)
        model = load_model(folder)
        if not reproducible:
            use_onednn(model)
        self._scorer = Scorer(model, reproducible=reproducible)
        table = pq.read_table(folder / ITEMS_FILE, columns=[ITEM_ID, COUNT])
        self._item_ids: pa.Array = table[ITEM_ID].cast(pa.string()).combine_chunks()
        self._counts = table[COUNT].to_numpy().astype(np.float32)
        self.num_items = len(self._item_ids)

    def numbered(self, histories: pa.ListArray) -> tuple[Histories, int]:
        """Histories of item ids as item numbers, and how many ids the catalog does not hold; those are left out."""
        flat = pc.index_in(histories.flatten().cast(pa.string()), value_set=self._item_ids)
        numbers = pc.fill_null(pc.add(flat, 1), PAD).to_numpy(zero_copy_only=False).astype(np.int32)
        known = numbers != PAD
        before = np.concatenate([[0], np.cumsum(known)])  # known ids in front of each place
        lengths = pc.fill_null(pc.list_value_length(histories), 0).to_numpy(zero_copy_only=False)
        offsets = before[np.concatenate([[0], np.cumsum(lengths)])]
        return Histories(numbers[known], offsets, np.zeros(len(histories), np.int64)), int((~known).sum())

    def recommend(self, histories: Histories, k: int, exclude_seen: bool = True) -> dict[str, pa.Array]:
        """The best `k` items of every user.

        Returns:
            `items` (list of item ids, best first), `scores` (list of float32), and `fallback`: ``"popularity"`` for
            users without a known item, who get the most frequent items with their counts, else null. Lists are shorter
            where the catalog has no more.
        """
        k = min(k, self.num_items)
        items, scores = np.full((len(histories), k), PAD, np.int64), np.full((len(histories), k), -np.inf, np.float32)
        lengths = np.diff(histories.offsets)
        known = np.flatnonzero(lengths)
        seen_by_model = np.minimum(lengths[known], self._scorer.model.max_length)
        known = known[np.argsort(seen_by_model, kind="stable")]  # histories of one length share a batch without padding
        if len(known):
            items[known], scores[known] = self._scorer.top_k(
                [histories.items[histories.offsets[row] : histories.offsets[row + 1]] for row in known],
                k,
                exclude_seen=exclude_seen,
                users=[int(user) for user in histories.users[known]],
            )
        items[lengths == 0], scores[lengths == 0] = np.arange(1, k + 1), self._counts[:k]
        return {**self._lists(items, scores), "fallback": _fallback(lengths == 0)}

    def _lists(self, items: IntArray, scores: NDArray[np.float32]) -> dict[str, pa.Array]:
        """Rows without their PAD as lists."""
        there = items != PAD
        offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), pa.int32())
        ids = self._item_ids.take(pa.array(items[there] - 1))
        return {
            "items": pa.ListArray.from_arrays(offsets, ids),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(scores[there])),
        }


def _fallback(unknown: NDArray[np.bool_]) -> pa.Array:
    return pa.array([POPULARITY if one else None for one in unknown.tolist()], pa.string())
