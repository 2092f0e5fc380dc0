"""What a student of a catalog weighs, before it is trained."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from components.artifacts.models import stored_bytes_by_part
from components.data.prepared import PreparedSet
from components.model import Catalog
from components.students import STUDENTS
from components.students.sequential import CompressibleConfig


def catalog_of(prepared: PreparedSet, kind: str | None = None) -> Catalog:
    """What students are built for; with texts, which cost memory, where students of `kind` read them, or for None."""
    reads = kind is None or STUDENTS[kind].reads_attributes
    return Catalog(
        prepared.num_items,
        len(prepared.sequences),
        prepared.counts,
        prepared.sequences,
        attributes=prepared.attributes if reads else None,
        user_attributes=prepared.user_attributes if reads else None,
    )


def measure_student(catalog: Catalog, kind: str, arguments: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters and stored bytes by part, counted from the module.

    A student whose size depends on numbers alone is built without memory.
    """
    spec = STUDENTS[kind]
    abstract = issubclass(spec.config, CompressibleConfig)
    with torch.device("meta") if abstract else nullcontext():
        model = spec.make(catalog, arguments)
    return model.parameter_parts(), stored_bytes_by_part(model, arguments)
