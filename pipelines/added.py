"""What adding items did, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

SHOWN: Final = 20  # ids in a message


@dataclass(frozen=True)
class Added:
    """What `add_items` did.

    Attributes:
        artifact: the folder that serves now.
        version: of its release; ``""`` where nothing was added.
        model: name and version of the model.
        num_items: items that it ranks.
        added: ids of the new ones.
        known: ids of the file that it ranked before; they are as they were.
        refused: id -> why it was not added.
        unusable_rows: rows of the file without an id.
        pictures: of the added items: how many have a vector, and the others by reason; empty where no teacher looks.
    """

    artifact: str
    version: str
    model: str
    num_items: int
    added: list[str]
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unusable_rows: int = 0
    pictures: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As one JSON document."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        if self.added:
            yield f"{len(self.added):,} items added: {_some(self.added)}"
        if self.known:
            yield f"{len(self.known):,} known already, left as they are: {_some(self.known)}"
        if self.refused:
            yield f"{len(self.refused):,} refused:"
            yield from (f"  {name}: {reason}" for name, reason in list(self.refused.items())[:SHOWN])
            if len(self.refused) > SHOWN:
                yield f"  … and {len(self.refused) - SHOWN:,} more; --json lists all"
        if self.unusable_rows:
            yield f"{self.unusable_rows:,} rows without an id"
        if self.pictures:
            absent = "".join(f", {count:,} {reason}" for reason, count in self.pictures["absent"].items())
            yield f"pictures: {self.pictures['with_image']:,} of {self.pictures['items']:,} read{absent}"
        yield f"{self.model} ranks {self.num_items:,} items: {self.artifact}"


def _some(names: list[str]) -> str:
    more = ", …" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
