"""The way from content to a student's item table: it is fitted when a student is exported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.artifacts.format import write_json
from components.artifacts.models import load_model, read_model_config
from components.data.prepared import PreparedSet
from components.distillation.new_items import MIN_ITEMS, Fit, fit, join_vectors
from components.item_maker import PROJECTION_CONFIG_FILE, PROJECTION_FILE, TEACH
from components.model import Catalog, ItemTensor, Ranker, ReadsContent
from components.schema import CONFIG_FILE
from pipelines.stages import Progress


def content_teachers(inputs: Mapping[str, Path]) -> dict[str, ReadsContent]:
    """The teachers among the nodes `inputs` that read content, by name; those of finished arrays do not."""
    found: dict[str, ReadsContent] = {}
    for node, folder in sorted(inputs.items()):
        if node.startswith(TEACH) and (folder / CONFIG_FILE).is_file():
            model = load_model(folder)
            if isinstance(model, ReadsContent):
                found[node.removeprefix(TEACH)] = model
    return found


def vectors_of(teachers: Mapping[str, ReadsContent], catalog: Catalog | None = None) -> list[Tensor]:
    """(M, d_k) vectors of every teacher of the items of `catalog`; of their own items for None."""
    return [teacher.content_vectors(catalog) for teacher in teachers.values()]


def write_projections(
    model: Ranker, kind: str, inputs: Mapping[str, Path], prepared: PreparedSet, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Fit the projections of an exported student and write them into its artifact, where both sides allow it.

    Returns:
        For the manifest: what was fitted and how well, or ``{"none": the reason}``.
    """
    with torch.no_grad():
        tables = model.item_tensors()
    if not tables:
        return {"none": f"{kind} keeps no table of item vectors that a new item could get a row of"}
    teachers = content_teachers(inputs)
    if not teachers:
        return {"none": "no teacher of the run reads item texts or pictures (unisrec, unim2rec and recformer do)"}
    trained = int((prepared.counts > 0).sum())
    if trained < MIN_ITEMS:
        return {"none": f"only {trained} items have training interactions; {MIN_ITEMS} are needed"}
    progress.note(f"projection of new items from {', '.join(teachers)}")
    vectors = vectors_of(teachers)
    fits = fit_tables(tables, join_vectors(vectors), prepared)
    tensors = {f"{name}/{part}": value for name, one in fits.items() for part, value in vars(one.projection).items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / PROJECTION_FILE)
    summary = {
        "teachers": {name: int(one.shape[1]) for name, one in zip(teachers, vectors, strict=True)},
        "tables": {name: _quality(one) for name, one in fits.items()},
    }
    write_json(folder / PROJECTION_CONFIG_FILE, summary)
    return summary


def fit_tables(tables: Sequence[ItemTensor], vectors: Tensor, prepared: PreparedSet) -> dict[str, Fit]:
    """A fit for every table of vectors or biases; values of attributes are looked up instead."""
    return {
        table.name: fit(vectors, table.fitted[1:].detach().reshape(len(vectors), -1), prepared.counts[1:], table.biases)
        for table in tables
        if not table.attribute
    }


def _quality(one: Fit) -> dict[str, float | None]:
    figures = {"ridge": one.ridge, "cosine": one.cosine, "cosine_of_the_mean_row": one.mean_cosine}
    return {name: None if math.isnan(value) else round(value, 6) for name, value in figures.items()}


def feature_names(teachers: Iterable[Path]) -> set[str]:
    """Names of the item features (``text``, ``image``) with which the artifacts `teachers` were built."""
    return {name for folder in teachers for name in read_model_config(folder).feature_dims}
