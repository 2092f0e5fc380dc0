"""Candidates with one fault each, made from an artifact of 32-bit numbers that has none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from components.artifacts.format import read_manifest, seal
from components.artifacts.models import read_model_config, read_tensors, save_model
from components.model import Catalog
from components.schema import CONFIG_FILE, ITEM_ID, ITEMS_FILE, METRICS_FILE, MODEL_FILE
from components.students import STUDENTS

SPOILED = slice(
    2, 202
)  # items whose vectors are NaN: not the most frequent one, which every single probe would ask for
FOREIGN = 0.6  # share of the items that have other ids
SLOW = {"dim": 512, "num_layers": 16, "num_heads": 2, "inner_dim": 2048, "max_length": 200}


def same(source: Path, target: Path) -> Path:
    """No fault: the control."""
    return _with_tensors(source, target, lambda tensors, items: tensors)


def nan(source: Path, target: Path) -> Path:
    """Ranks nothing after some items, and everything after others."""

    def spoil(tensors: Mapping[str, Tensor], items: int) -> dict[str, Tensor]:
        spoiled = {name: tensor.clone() for name, tensor in tensors.items()}
        for tensor in spoiled.values():
            if len(tensor) == items + 1 and tensor.is_floating_point():
                tensor[SPOILED] = torch.nan
        return spoiled

    return _with_tensors(source, target, spoil)


def untrained(source: Path, target: Path) -> Path:
    """Ranks at random, quickly and without an error."""

    def scatter(tensors: Mapping[str, Tensor], items: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(0)
        return {name: torch.randn(tensor.shape, generator=draw) * 0.1 for name, tensor in tensors.items()}

    return _with_tensors(source, target, scatter)


def slow(source: Path, target: Path) -> Path:
    """A hundred times the work."""
    _copied(source, target)
    items = read_model_config(source).num_items
    catalog = Catalog(items, 1, np.zeros(items + 1, np.int64))
    torch.manual_seed(0)
    save_model(
        STUDENTS["sasrec"].make(catalog, SLOW), target, kind="sasrec", family="student", arguments=SLOW, catalog=catalog
    )
    return _sealed(source, target)


def foreign(source: Path, target: Path) -> Path:
    """Trained on another catalog: most ids of requests mean nothing to it."""
    _copied(source, target)
    table = pl.read_parquet(target / ITEMS_FILE)
    renamed = np.random.default_rng(0).random(table.height) < FOREIGN
    ids = [f"other-{item}" if moved else item for item, moved in zip(table[ITEM_ID].to_list(), renamed, strict=True)]
    table.with_columns(pl.Series(ITEM_ID, ids)).write_parquet(target / ITEMS_FILE)
    return _sealed(source, target)


def damaged(source: Path, target: Path) -> Path:
    """Half of its tensors are missing on the disk."""
    same(source, target)
    content = (target / MODEL_FILE).read_bytes()
    (target / MODEL_FILE).write_bytes(content[: len(content) // 2])
    return target


FAULTS: Mapping[str, Callable[[Path, Path], Path]] = {
    "slow": slow,
    "NaN after some items": nan,
    "untrained": untrained,
    "another catalog": foreign,
    "damaged file": damaged,
}


def _with_tensors(
    source: Path, target: Path, change: Callable[[Mapping[str, Tensor], int], Mapping[str, Tensor]]
) -> Path:
    _copied(source, target)
    changed = change(read_tensors(source / MODEL_FILE), read_model_config(source).num_items)
    save_file(dict(changed), target / MODEL_FILE)
    return _sealed(source, target)


def _copied(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in (CONFIG_FILE, MODEL_FILE, ITEMS_FILE, METRICS_FILE):
        shutil.copyfile(source / name, target / name)


def _sealed(source: Path, target: Path) -> Path:
    seal(target, {"model": {"name": target.name}, "seeds": read_manifest(source).get("seeds", [])})
    return target
