"""What the teachers of a finished run read off the texts and pictures of new items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from components.artifacts.models import load_model
from components.artifacts.parents import unchanged_parent
from components.data.prepared import PreparedSet
from components.errors import ArtifactError
from components.item_maker import TEACH
from components.model import ReadsContent
from pipelines.config import ClusterConfig
from pipelines.new_item_table import NewItems
from pipelines.new_items import feature_names, vectors_of
from pipelines.ray_session import ray_session
from pipelines.stages import Progress

FEW: Final = 1000  # new items whose texts and pictures one process encodes; more are spread over Ray


@dataclass(frozen=True)
class ReadItems:
    """What was read of M new items.

    Attributes:
        vectors: (M, d_k) of every teacher.
        attributes: (M,) texts by text column.
        pictures: what became of their pictures; empty where no teacher looks at them.
    """

    vectors: list[Tensor]
    attributes: Mapping[str, list[str]]
    pictures: dict[str, Any]


class RunContent:
    """The encoders and teachers of a run. Language models and teachers are loaded when the first item is read.

    Args:
        run: a run folder.
        artifact: its export, or a release of it.
        teachers: names of the teachers that read.

    Raises:
        UserError: a part of the run is missing.
        ArtifactError: a part is damaged, or was made again since the export.
    """

    def __init__(self, run: Path, artifact: Path, teachers: Sequence[str]) -> None:
        self.run = run
        self.prepared = PreparedSet(unchanged_parent(run, artifact, "prepare"))
        self.folders = {name: unchanged_parent(run, artifact, f"{TEACH}{name}") for name in teachers}

    @property
    def text_columns(self) -> list[str]:
        """The columns of which the run made an item's text, in order."""
        columns: list[str] = self.prepared.manifest["items"]["text_columns"]
        return columns

    @cached_property
    def teachers(self) -> dict[str, ReadsContent]:
        """The teachers by name."""
        return {name: _reader(folder) for name, folder in self.folders.items()}

    @cached_property
    def features(self) -> dict[str, Any] | None:
        """How the run made features; None where none of the teachers reads any."""
        from pipelines.new_item_features import features_config  # here: it imports Ray, see `read`

        return features_config(self.run, self.folders) if feature_names(self.folders.values()) else None

    def read(self, items: NewItems, progress: Progress) -> ReadItems:
        """Read new items, in this process where they are `FEW`.

        Raises:
            ArtifactError: the run's features are not those that the teachers learnt from.
        """
        alone = len(items.ids) <= FEW
        session: AbstractContextManager[None] = nullcontext() if alone else ray_session(ClusterConfig())
        with session:
            from pipelines.new_item_features import catalog_of  # here: it imports Ray, which reads its settings then

            described, pictures = catalog_of(self.run, items, self.folders, progress, alone=alone, config=self.features)
        with torch.no_grad():
            vectors = vectors_of(self.teachers, described)
        return ReadItems(vectors, described.attributes or {}, pictures)


def _reader(folder: Path) -> ReadsContent:
    model = load_model(folder)
    if not isinstance(model, ReadsContent):
        raise ArtifactError(f"{folder}: reads no content; run `distilrec export CONFIG` again")
    return model
