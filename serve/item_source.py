"""What a loaded artifact needs to take new items: its projection, and whose vectors the projection reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from components.artifacts.parents import unchanged_parent
from components.data.prepared import PreparedSet
from components.errors import DistilrecError
from components.item_maker import TEACH, ItemMaker, read_projections, table_rows, why_none
from components.recommender import Recommender
from serve.item_store import KeptItem


class ItemEncoder(Protocol):
    """Reads texts of new items by the encoders and teachers of a run.

    Attributes:
        run: the run's folder.
        teachers: identity of the teachers, see `teachers_identity`.
        columns: the run's text columns, of which an item's text is made in this order.
    """

    run: Path
    teachers: str
    columns: list[str]

    def vectors(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
        """(M, d_k) float32 vectors of norm 1 by teacher of M items, each given as texts by column.

        Raises:
            DistilrecError: the run is damaged or was made again since the export.
        """
        ...


@dataclass(frozen=True)
class ItemKeeping:
    """Where an endpoint keeps new items, and who reads their texts; it travels to every replica.

    Attributes:
        store: the file, see `serve.item_store`.
        encoder: None where texts cannot be read.
        why_no_text: the reason for that.
    """

    store: Path
    encoder: ItemEncoder | None = None
    why_no_text: str = ""


@dataclass(frozen=True)
class ItemSource:
    """How one artifact makes rows of new items.

    Attributes:
        maker: None where it cannot.
        why_not: the reason.
        teachers: identity of the teachers that it was fitted on.
        known: (N,) texts of the trained items by attribute whose values the student's tables hold.
    """

    maker: ItemMaker | None
    why_not: str = ""
    teachers: str = ""
    known: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def dims(self) -> dict[str, int]:
        """Width of the vectors by teacher; empty where no item can be added."""
        return {} if self.maker is None else dict(zip(self.maker.teachers, self.maker.dims, strict=True))

    def rows(self, recommender: Recommender, items: Sequence[KeptItem]) -> dict[str, Tensor]:
        """(M, ...) rows of M items by tensor; equal to the bit whatever items come together."""
        assert self.maker is not None
        vectors = [torch.stack([item.vectors[name] for item in items]) for name in self.maker.teachers]
        attributes = {name: [item.texts.get(name, "") for item in items] for name in self.known}
        return table_rows(recommender.item_tensors(), self.maker, vectors, attributes, self.known)


def item_source(recommender: Recommender, run: Path | None) -> ItemSource:
    """Read what `recommender` needs to take new items.

    Args:
        recommender: as it was loaded.
        run: the run that its artifact is of, where it is there: students that read attributes need its prepared set.
    """
    try:
        maker = read_projections(recommender.folder)
        if maker is None:
            return ItemSource(None, why_none(recommender.folder))
        names = [table.attribute for table in recommender.item_tensors() if table.attribute]
        if names and run is None:
            fields = ", ".join(names)
            return ItemSource(
                None, f"it reads attributes ({fields}), whose values lie in its run's folder; serve the run"
            )
        known = {}
        if names and run is not None:
            attributes = PreparedSet(unchanged_parent(run, recommender.folder, "prepare")).attributes
            known = {name: attributes[name] for name in names}
    except (DistilrecError, KeyError) as error:
        return ItemSource(None, str(error))
    return ItemSource(maker, "", teachers_identity(maker.teachers, recommender.manifest), known)


def teachers_identity(teachers: Sequence[str], manifest: Mapping[str, Any]) -> str:
    """A hash that is equal for two artifacts whose projections read the vectors of the very same teachers."""
    parents = manifest.get("parents", {})
    made_of = {name: parents.get(f"{TEACH}{name}", "") for name in teachers}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
