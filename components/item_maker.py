"""Rows of an exported student for items that it was not trained on, from the vectors that teachers read off content.

The command line and the endpoint both add items through this file, so both give an item the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from components.artifacts.format import REMEDY, read_json, read_manifest
from components.distillation.new_items import Projection, join_vectors
from components.errors import ArtifactError
from components.model import ItemTensor
from components.schema import UNKNOWN

TEACH: Final = "teach/"  # before a teacher's name: its node in a run
NEW_ITEMS: Final = "new_items"  # in the manifest of an export: what was fitted, or why nothing was
PROJECTION_FILE: Final = "new_items.safetensors"
PROJECTION_CONFIG_FILE: Final = "new_items.json"
TILE: Final = 64  # items of every matrix product, so that an item's rows do not depend on what it is added with


@dataclass(frozen=True)
class ItemMaker:
    """Makes rows of an exported student for items that it was not trained on.

    Attributes:
        teachers: names of the teachers whose vectors are read, in order.
        dims: width of each one's vectors.
        projections: by tensor of the student.
    """

    teachers: list[str]
    dims: list[int]
    projections: dict[str, Projection]

    def rows(self, vectors: Sequence[Tensor]) -> dict[str, Tensor]:
        """(M, d_k) vectors of every teacher -> (M, D) rows by tensor.

        Raises:
            ArtifactError: a teacher's vectors have another width than those that the projection was fitted on.
        """
        found = [one.shape[1] for one in vectors]
        if found != self.dims:
            raise ArtifactError(
                f"the teachers {', '.join(self.teachers)} give vectors of {found} numbers, the projection reads "
                f"{self.dims}; run `distilrec export CONFIG` again"
            )
        joined = join_vectors(vectors)
        tiles = torch.split(F.pad(joined, (0, 0, 0, -len(joined) % TILE)), TILE)
        return {
            name: torch.cat([projection.rows(tile) for tile in tiles])[: len(joined)]
            for name, projection in self.projections.items()
        }


def read_projections(artifact: Path) -> ItemMaker | None:
    """The projections of an exported artifact; None where it has none.

    Raises:
        ArtifactError: they are damaged.
    """
    file = artifact / PROJECTION_CONFIG_FILE
    if not file.is_file():
        return None
    try:
        tensors = load_file(artifact / PROJECTION_FILE)
        described = read_json(file)
        teachers = {str(name): int(dim) for name, dim in described["teachers"].items()}
        projections = {
            name: Projection(**{part: tensors[f"{name}/{part}"] for part in Projection.__dataclass_fields__})
            for name in described["tables"]
        }
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{artifact / PROJECTION_FILE}: damaged ({error}); {REMEDY}") from error
    return ItemMaker(sorted(teachers), [teachers[name] for name in sorted(teachers)], projections)


def why_none(artifact: Path) -> str:
    """Why an artifact without projections has none, as its manifest says."""
    described = read_manifest(artifact).get(NEW_ITEMS) or {}
    return str(described.get("none", "it was exported without a projection of new items"))


def table_rows(
    tables: Sequence[ItemTensor],
    maker: ItemMaker,
    vectors: Sequence[Tensor],
    attributes: Mapping[str, list[str]],
    known: Mapping[str, list[str]],
) -> dict[str, Tensor]:
    """Rows of new items for every table of a student, in the form in which its state keeps them.

    Args:
        tables: of the student.
        maker: of its artifact.
        vectors: (M, d_k) of every teacher.
        attributes: (M,) texts of the new items by attribute, for tables that hold values of attributes.
        known: (N,) texts of the items that the student was trained on by attribute.
    """
    made = maker.rows(vectors)
    rows = {}
    for table in tables:
        if table.attribute:
            texts = attributes[table.attribute]
            rows[table.name] = torch.tensor(look_up_values(known[table.attribute], table.fitted, texts))
        else:
            scaled = made[table.name] * table.scale
            rows[table.name] = scaled.reshape(len(scaled), *table.fitted.shape[1:])
    return rows


def look_up_values(known: list[str], values: Tensor, texts: list[str]) -> list[int]:
    """Value numbers of the texts of new items: those that the same texts of known items have, else unknown.

    Args:
        known: (N,) texts of the items that the student was trained on.
        values: (N + 1,) or longer, their numbers; entry 0 is PAD.
        texts: of the new items.

    >>> look_up_values(["red", "", "gold"], torch.tensor([0, 2, 0, 1]), ["gold", "blue", ""])
    [1, 0, 0]
    """
    numbers = dict(zip(known, values[1 : len(known) + 1].tolist(), strict=True))
    return [int(numbers.get(text, UNKNOWN)) if text else UNKNOWN for text in texts]
