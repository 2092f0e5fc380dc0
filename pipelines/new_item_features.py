"""Texts and pictures of new items -> what the run's teachers read, by the run's own encoders and its cache.

Import this after a Ray session is open, where one is needed: the encoders import Ray, which reads its settings then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from components.artifacts.format import read_json, verify
from components.data.prepared import PreparedSet
from components.errors import ArtifactError
from components.features.image import ImageConfig
from components.features.text import TextConfig
from components.model import Catalog
from components.schema import IMAGE, ITEMS_FILE, MANIFEST_FILE, TEXT
from components.teachers.content import IMAGE_FEATURE, TEXT_FEATURE
from pipelines.actor_pool import available
from pipelines.cache import sealed_digest
from pipelines.config import ClusterConfig
from pipelines.features import CACHE_FOLDER, FloatTable, encode_texts
from pipelines.image_features import ImageTable, picture_vectors
from pipelines.new_item_table import NewItems
from pipelines.new_items import feature_names
from pipelines.ray_session import use_gpu
from pipelines.stages import Progress

FEATURES = "features"


def catalog_of(
    run: Path,
    items: NewItems,
    teachers: Mapping[str, Path],
    progress: Progress,
    *,
    alone: bool = False,
    config: dict[str, Any] | None = None,
) -> tuple[Catalog, dict[str, Any]]:
    """The new items as a catalog of their own, numbered in their order, and what became of their pictures.

    Args:
        run: whose encoders are used.
        items: what the file says.
        teachers: artifacts of the teachers that will read the catalog.
        progress: told of what is encoded.
        alone: encode in this process; else a Ray session must be open where a teacher reads features.
        config: what `features_config` said, where the caller knows it: it reads whole files.

    Raises:
        ArtifactError: the run's features are not those that the teachers learnt from.
    """
    count = len(items.ids)
    tables: dict[str, FloatTable] = {}
    pictures: dict[str, Any] = {}
    wanted = feature_names(teachers.values())
    if wanted:
        config, cache = config or features_config(run, teachers), run.parent / CACHE_FOLDER
        gpu = torch.cuda.is_available() if alone else use_gpu(ClusterConfig(), available("GPU"))
        settings = TextConfig.model_validate(config[FEATURES])
        texts = encode_texts(items.frame[TEXT].to_list(), settings, cache, progress, gpu=gpu, alone=alone)
        tables[TEXT_FEATURE] = np.concatenate([np.zeros((1, texts.shape[1]), np.float32), texts])
        if IMAGE_FEATURE in wanted:
            table = _pictures(items.frame, ImageConfig.model_validate(config["images"]), cache, progress, gpu, alone)
            pictures = table.counts
            tables |= {IMAGE_FEATURE: table.vectors} if pictures["with_image"] else {}
    names = PreparedSet(run / "prepare").text_columns
    catalog = Catalog(count, 0, np.zeros(count + 1, np.int64), features=tables, attributes=items.attributes(names))
    return catalog, pictures


def features_config(run: Path, teachers: Mapping[str, Path]) -> dict[str, Any]:
    """How the run made the features that the teachers read.

    Raises:
        ArtifactError: they are damaged, or not those that the teachers learnt from.
    """
    folder = run / FEATURES
    verify(folder)
    made = sealed_digest(folder)
    for name, teacher in teachers.items():
        read = read_json(teacher / MANIFEST_FILE)["inputs"].get(FEATURES)
        if read is not None and read != made:
            raise ArtifactError(
                f"{folder}: was made again since teacher {name} was tuned; run `distilrec run CONFIG` again"
            )
    config: dict[str, Any] = read_json(folder / MANIFEST_FILE)["config"]
    return config


def _pictures(
    frame: pl.DataFrame, config: ImageConfig, cache: Path, progress: Progress, gpu: bool, alone: bool
) -> ImageTable:
    """Vectors of the new items' pictures, and how many have one."""
    none = {"items": frame.height, "with_image": 0, "absent": {"not given": frame.height}}
    if IMAGE not in frame.columns:
        return ImageTable(np.zeros((frame.height + 1, 1), np.float32), none)
    with tempfile.TemporaryDirectory(prefix="new-items") as folder:
        file = Path(folder) / ITEMS_FILE
        frame.select(IMAGE).write_parquet(file)
        table = picture_vectors(file, config, cache, progress, gpu=gpu, alone=alone)
    assert table is not None  # the file has the column
    return table
