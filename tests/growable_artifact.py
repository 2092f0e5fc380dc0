"""A small artifact that takes new items, and teachers' vectors to add them by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from components.artifacts.format import seal, write_json
from components.artifacts.models import save_model
from components.distillation.new_items import fit, join_vectors
from components.item_maker import PROJECTION_CONFIG_FILE, PROJECTION_FILE
from components.schema import COUNT, ITEM, ITEM_ID, ITEMS_FILE, METRICS_FILE, TEXT
from components.students import STUDENTS
from serve.item_source import teachers_identity
from tests.tiny_artifact import ARGUMENTS, item_id, make_model

DIMS: Final = {"both": 4, "words": 8}
PARENTS: Final = {"teach/both": "b0", "teach/words": "a0"}


def write_growable(
    folder: Path, num_items: int = 60, seed: int = 0, parents: Mapping[str, str] = PARENTS, **compression: Any
) -> Path:
    folder.mkdir(parents=True)
    model, catalog = make_model(num_items, seed)
    arguments: dict[str, Any] = dict(ARGUMENTS)
    if compression:
        arguments["compression"] = {"input": "full", "output": "tied", **compression}
        model = STUDENTS["sasrec"].make(catalog, arguments).eval()
    save_model(model, folder, kind="sasrec", family="student", arguments=arguments, catalog=catalog)
    numbers = np.arange(1, num_items + 1, dtype=np.int32)
    counts = np.arange(num_items, 0, -1)
    columns = {ITEM: numbers, ITEM_ID: [item_id(n) for n in numbers], TEXT: [f"Thing {n}" for n in numbers]}
    pl.DataFrame({**columns, COUNT: counts}).write_parquet(folder / ITEMS_FILE)
    write_json(folder / METRICS_FILE, {"valid_ndcg@10": 0.25})
    (table,) = model.item_tensors()
    generator = torch.Generator().manual_seed(1)
    vectors = [F.normalize(torch.randn(num_items, dim, generator=generator), dim=1) for dim in DIMS.values()]
    found = fit(join_vectors(vectors), table.fitted[1:].detach(), counts.astype(np.int64))
    parts = {f"{table.name}/{part}": value.contiguous() for part, value in vars(found.projection).items()}
    save_file(parts, folder / PROJECTION_FILE)
    write_json(folder / PROJECTION_CONFIG_FILE, {"teachers": DIMS, "tables": {table.name: {}}})
    seal(folder, {"model": {"name": "tiny"}, "seeds": [seed], "parents": dict(parents)})
    return folder


def unit_vectors(word: str) -> dict[str, list[float]]:
    """Vectors of norm 1 by teacher; equal words have equal ones."""
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    generator = torch.Generator().manual_seed(seed)
    return {name: F.normalize(torch.randn(dim, generator=generator), dim=0).tolist() for name, dim in DIMS.items()}


def new_item(word: str, **more: Any) -> dict[str, Any]:
    return {"item_id": f"new-{word}", "title": word.title(), "vectors": unit_vectors(word), **more}


class WordEncoder:
    """Reads a text as the vectors of its words."""

    def __init__(self, run: Path, parents: Mapping[str, str] = PARENTS) -> None:
        self.run, self.columns = run, ["title", "brand"]
        self.teachers = teachers_identity(sorted(DIMS), {"parents": dict(parents)})
        self.calls = 0

    def vectors(self, texts: Sequence[Mapping[str, str]]) -> dict[str, Tensor]:
        self.calls += 1
        each = [unit_vectors(f"{text.get('title', '')}{text.get('brand', '')}") for text in texts]
        return {name: torch.tensor([one[name] for one in each]) for name in DIMS}
