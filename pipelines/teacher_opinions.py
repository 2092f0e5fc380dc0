"""What an endpoint needs to say which teacher liked an item: the teachers' item vectors, kept small."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from components.artifacts.format import read_json
from components.artifacts.opinions import OPINIONS_FILE, unit_rows, write_opinions
from pipelines.training_job import TEACHERS_FILE, teacher_items

ANNOTATE: Final = "annotate"
MAX_BYTES: Final = 32 << 20  # in a replica it is twice that, and only once somebody asks


def write_teacher_items(annotated: Path | None, folder: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Write every teacher's item vectors into an artifact; those of the most frequent items where all are too many.

    Args:
        annotated: the run's annotated set; None where it has no teachers.
        folder: the artifact.
        max_bytes: of all vectors together.

    Returns:
        For the manifest: ``{"teachers": {name: width}, "items": n, "bytes": b}``, or ``{"none": the reason}``.
    """
    if annotated is None:
        return {"none": "the run has no teachers"}
    names = [entry["name"] for entry in read_json(annotated / TEACHERS_FILE)["teachers"]]
    vectors = {name: np.load(teacher_items(annotated, name), allow_pickle=False) for name in names}  # (N + 1, d) each
    widths = {name: int(one.shape[1]) for name, one in vectors.items()}
    known = min(len(one) - 1 for one in vectors.values())
    count = min(known, max_bytes // (2 * sum(widths.values())))
    write_opinions(folder, {name: unit_rows(one[1:].astype(np.float32))[:count] for name, one in vectors.items()})
    return {"teachers": widths, "items": count, "bytes": (folder / OPINIONS_FILE).stat().st_size}
