"""What the executor asks of the place where a run is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.cache import Stored
    from pipelines.graph import Node


class Keeper:
    """What the executor asks of the place where a run is kept. This one does nothing: the run folder itself is it."""

    def stored(self, nodes: Sequence[Node]) -> dict[str, Stored]:
        """Nodes that the storage holds and the run folder lacks, by name."""
        return {}

    def fetch(self, folder: str) -> None:
        """Have a finished node in the run folder."""

    def keep(self, folder: str) -> None:
        """Store a node that was just finished."""
