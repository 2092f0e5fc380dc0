"""What the teachers of an exported student think of an item after a history, from their item vectors alone.

A teacher's states exist for the training positions only, so what it would rank after a free history is not known
without its network. Its item vectors are: an item is as close to a history as to the item of it that is nearest, by the
cosine of centered vectors, and its position is that among all items by this closeness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from components.artifacts.format import REMEDY
from components.errors import ArtifactError

OPINIONS_FILE: Final = "teacher_items.safetensors"  # NAME -> (n, d) fp16 unit vectors of the items 1 to n
OPINIONS: Final = "opinions"  # key of the manifest
LAST_ITEMS: Final = 50  # of a history that are looked at

FloatTable = NDArray[np.float32]


@dataclass(frozen=True)
class Opinion:
    """What one teacher thinks of one item.

    Attributes:
        position: 1 is the closest of all items that are not in the history.
        nearest: number of the history's item that it is closest to.
        similarity: cosine to that item, -1 to 1.
    """

    position: int
    nearest: int
    similarity: float


def unit_rows(vectors: FloatTable) -> FloatTable:
    """(n, d) rows of length 1 after the mean row is taken off; a row of zeros (nothing is known) stays zero.

    Without centering, vectors of texts are all alike: cosines of 0.9 between any two.
    """
    known = vectors.any(axis=1, keepdims=True)
    mean = vectors.sum(axis=0) / max(int(known.sum()), 1)
    centered = np.where(known, vectors - mean, 0.0)
    norms = np.linalg.norm(centered, axis=1, keepdims=True)
    rows: FloatTable = np.divide(centered, norms, out=np.zeros_like(centered), where=norms > 0).astype(np.float32)
    return rows


def opinions_of(rows: FloatTable, history: Sequence[int], items: Sequence[int]) -> list[Opinion | None]:
    """One teacher's opinion of each of `items`; None for items of the history and those that it knows nothing of.

    Args:
        rows: (n, d) unit vectors of the items 1 to n, see `unit_rows`.
        history: item numbers, oldest first; the last `LAST_ITEMS` count.
        items: item numbers.

    >>> rows = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 0]], np.float32)
    >>> [opinion and opinion.position for opinion in opinions_of(rows, [2], [1, 2, 3, 4, 9])]
    [2, None, 1, None, None]
    """

    def known(item: int) -> bool:
        return 1 <= item <= len(rows) and bool(rows[item - 1].any())

    seen = [item for item in dict.fromkeys(reversed(history)) if known(item)][:LAST_ITEMS]
    if not seen:
        return [None] * len(items)
    cosines = rows @ rows[np.array(seen) - 1].T  # (n, history)
    closest = cosines.max(axis=1)
    ranked = np.delete(closest, np.array(seen) - 1)
    found: list[Opinion | None] = []
    for item in items:
        if not known(item) or item in history:
            found.append(None)
            continue
        position = 1 + int((ranked > closest[item - 1]).sum())
        found.append(Opinion(position, seen[int(cosines[item - 1].argmax())], float(closest[item - 1])))
    return found


def write_opinions(folder: Path, vectors: Mapping[str, FloatTable]) -> None:
    """Write (n, d) `unit_rows` by teacher into an artifact."""
    save_file({name: rows.astype(np.float16) for name, rows in vectors.items()}, folder / OPINIONS_FILE)


def read_opinions(path: Path) -> dict[str, FloatTable]:
    """(n, d) unit vectors by teacher.

    Raises:
        ArtifactError: the file is damaged.
    """
    try:
        return {name: rows.astype(np.float32) for name, rows in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: not readable as vectors of teachers ({error}); {REMEDY}") from error
