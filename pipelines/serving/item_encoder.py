"""What lets an endpoint take new items: the place where they are kept, and the run that reads their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from torch import Tensor

from components.artifacts.format import read_manifest
from components.errors import DistilrecError
from components.item_maker import read_projections
from components.recommender import Recommender
from pipelines.new_item_table import described_items
from pipelines.run_content import RunContent
from pipelines.served import find_run
from pipelines.serving.histories import SERVING
from serve.growing import NO_RUN, NO_STORE
from serve.histories.source import is_redis
from serve.item_source import ItemKeeping, item_source, teachers_identity

STORE_FILE: Final = "items.sqlite"


class Quiet:
    """Progress of a few texts, which nobody watches."""

    def start(self, total: int | None, unit: str, done: int = 0) -> None:
        """Nothing to show."""

    def advance(self, n: int = 1, **shown: float | str) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""

    def say(self, text: str) -> None:
        """Nothing to show."""


class RunEncoder:
    """Reads texts by the encoders and teachers of a run, see `serve.item_source.ItemEncoder`; one thread at a time.

    Args:
        run: the run's folder.
        artifact: its export, or a release of it, with a projection of new items.

    Raises:
        UserError: a part of the run is missing.
        ArtifactError: a part is damaged, or was made again since the export.
    """

    def __init__(self, run: Path, artifact: Path) -> None:
        self.run, self.artifact = run, artifact
        maker = read_projections(artifact)
        self._names = [] if maker is None else maker.teachers
        self.teachers = teachers_identity(self._names, read_manifest(artifact))
        self._content = RunContent(run, artifact, self._names)
        self.columns = self._content.text_columns

    def vectors(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
        """(M, d_k) vectors by teacher; see `serve.item_source.ItemEncoder`."""
        read = self._content.read(described_items(texts, self.columns), Quiet())
        return {name: one.float().contiguous() for name, one in zip(self._names, read.vectors, strict=True)}


def item_keeping(artifact: Path, events: str | None = None, encoders: Path | None = None) -> ItemKeeping | None:
    """Where the endpoint of an artifact keeps new items, and what reads their texts; None where they have no place.

    Args:
        artifact: what is served.
        events: where events are kept: items go into the same folder, else into that of the artifact's run.
        encoders: a run whose encoders and teachers read texts; None takes the run that the artifact lies in, if any.

    Raises:
        DistilrecError: `encoders` is not the run that the artifact was made in, or a part of it is missing.
    """
    run = find_run(artifact)
    given = RunEncoder(encoders.absolute(), artifact) if encoders is not None else None
    if events is not None and not is_redis(events):
        store = Path(events) / STORE_FILE
    elif run is not None:
        store = run / SERVING / STORE_FILE
    else:
        return None
    if given is not None:
        return ItemKeeping(store, given)
    if run is None:
        return ItemKeeping(store, None, NO_RUN)
    try:
        return ItemKeeping(store, RunEncoder(run, artifact))
    except DistilrecError as error:
        return ItemKeeping(store, None, str(error))


def items_notice(recommender: Recommender, keeping: ItemKeeping | None) -> str:
    """Whether items can be added while serving, in a line."""
    if keeping is None:
        return f"new items cannot be added: {NO_STORE}"
    source = item_source(recommender, keeping.encoder.run if keeping.encoder else None)
    if source.maker is None:
        return f"new items cannot be added: {source.why_not}"
    dims = ", ".join(f"{name} ({dim})" for name, dim in source.dims.items())
    if keeping.encoder is None:
        return f"POST /v1/items takes new items by vectors of {dims}; not by texts: {keeping.why_no_text}"
    return f"POST /v1/items takes new items by texts ({', '.join(keeping.encoder.columns)}) or vectors of {dims}"
