"""A small artifact that serves: a SASRec with random weights over made-up items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.artifacts.format import seal, write_json
from components.artifacts.models import save_model
from components.model import Catalog, Ranker
from components.recommender import HISTORIES_FILE
from components.schema import (
    ATTRIBUTES_FILE,
    COUNT,
    ITEM,
    ITEM_ID,
    ITEMS,
    ITEMS_FILE,
    METRICS_FILE,
    TEXT,
    USER,
    USER_ID,
)
from components.students import STUDENTS

ARGUMENTS = {"dim": 16, "num_layers": 1, "num_heads": 2, "inner_dim": 32, "max_length": 12}


def make_model(num_items: int = 60, seed: int = 0) -> tuple[Ranker, Catalog]:
    torch.manual_seed(seed)
    catalog = Catalog(num_items, 5, np.zeros(num_items + 1, np.int64))
    model = STUDENTS["sasrec"].make(catalog, ARGUMENTS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()  # far from its gentle start, so that scores spread
    return model.eval(), catalog


def item_id(number: int) -> str:
    return f"id-{number}"


def attributes_of(number: int) -> dict[str, list[str]]:
    """Every item has a color, every second one no kind, the others two."""
    kinds = [f"kind {number % 3}", "all, of them"] if number % 2 else []
    return {"color": [("red", "green", "blue")[number % 3]], "kinds": kinds}


def write_artifact(
    folder: Path, num_items: int = 60, seed: int = 0, histories: bool = False, attributes: bool = False
) -> Path:
    folder.mkdir(parents=True)
    model, catalog = make_model(num_items, seed)
    save_model(model, folder, kind="sasrec", family="student", arguments=ARGUMENTS, catalog=catalog)
    numbers = np.arange(1, num_items + 1, dtype=np.int32)
    table = {
        ITEM: numbers,
        ITEM_ID: [item_id(number) for number in numbers],
        TEXT: [f"Thing Nº {number}" for number in numbers],
        COUNT: np.arange(num_items, 0, -1),
    }
    pl.DataFrame(table).write_parquet(folder / ITEMS_FILE)
    write_json(folder / METRICS_FILE, {"valid_ndcg@10": 0.25})
    if histories:
        users = pl.DataFrame({USER_ID: ["ann", "böb"], USER: [1, 2], ITEMS: [[3, 4, 5], [9]]})
        users.write_parquet(folder / HISTORIES_FILE)
    if attributes:
        values = {name: pl.List(pl.String) for name in attributes_of(1)}
        pl.DataFrame(map(attributes_of, numbers), schema=values).write_parquet(folder / ATTRIBUTES_FILE)
    seal(folder, {"model": {"name": "tiny"}, "seeds": [seed]})
    return folder
