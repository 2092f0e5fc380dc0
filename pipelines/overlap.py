"""What pre-training may have seen of the run's own items: taken out of the domains, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.overlap import Hashes, shared, text_hashes
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, DataError

SOURCES_FILE: Final = "sources.parquet"  # of a pre-trained artifact: domain and text hash of every item it learnt from


@dataclass(frozen=True)
class Overlap:
    """Items of the run's own catalog that also stand in the sources of pre-training.

    Attributes:
        target: items of the run's own catalog.
        found: how many of them stand in any source.
        sources: by domain, the text hashes of its items (N,).
        left_out: by domain, the numbers (from 1) of its items that are the run's own.
    """

    target: int
    found: int
    sources: Mapping[str, Hashes]
    left_out: Mapping[str, tuple[int, ...]]

    @property
    def share(self) -> float:
        """Of the run's own items."""
        return self.found / max(self.target, 1)

    def describe(self) -> str:
        """One line for people."""
        where = ", ".join(f"{name} {len(items):,}" for name, items in self.left_out.items() if items)
        return f"{self.found:,} of the run's own {self.target:,} items ({self.share:.1%}) stand in domains ({where})"

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        domains = {
            name: {"items": len(self.sources[name]), "left_out": len(self.left_out[name])} for name in self.sources
        }
        return {"overlap": {"own_items": self.target, "found": self.found, "domains": domains}}

    def check(self, limit: float, remedy: str) -> None:
        """Refuse more than the share `limit`.

        Raises:
            DataError: how many items stand where, and `remedy`.
        """
        if self.share > limit:
            raise DataError(f"{self.describe()}, and pretrain.max_overlap is {limit:.1%}: {remedy}")

    def write_sources(self, folder: Path) -> None:
        """Keep what a later run needs to compare its own items with: all items but those that were left out."""
        tables = []
        for name, hashes in self.sources.items():
            learnt = np.delete(hashes, np.array(self.left_out[name], dtype=np.int64) - 1)
            tables.append(pa.table({"domain": [name] * len(learnt), "hash": learnt}))
        pq.write_table(pa.concat_tables(tables), folder / SOURCES_FILE)


def compare(target: PreparedSet, domains: Mapping[str, PreparedSet]) -> Overlap:
    """The run's own items against those of every domain."""
    return _overlap(text_hashes(target.texts), {name: text_hashes(domain.texts) for name, domain in domains.items()})


def compare_artifact(target: PreparedSet, folder: Path) -> Overlap:
    """The run's own items against those that a pre-trained artifact learnt from.

    Raises:
        ArtifactError: the artifact does not say from what it learnt.
    """
    path = folder / SOURCES_FILE
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; {folder} is no finished folder of stage `pretrain`")
    table = pq.read_table(path)
    names, hashes = np.array(table["domain"].to_pylist(), dtype=object), table["hash"].to_numpy()
    own = {name: hashes[names == name] for name in dict.fromkeys(names.tolist())}
    return _overlap(text_hashes(target.texts), own)


def _overlap(own: Hashes, sources: Mapping[str, Hashes]) -> Overlap:
    everything = np.concatenate([np.zeros(0, np.uint64), *sources.values()])
    left_out = {name: tuple((1 + np.flatnonzero(shared(hashes, own))).tolist()) for name, hashes in sources.items()}
    return Overlap(len(own), int(shared(own, everything).sum()), sources, left_out)
