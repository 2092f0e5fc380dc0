"""Pre-training of UniM2Rec from folders to weights, and the teacher that starts from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from components.artifacts.models import load_model
from components.schema import MODEL_FILE
from components.teachers.pretraining import ContrastiveConfig
from components.teachers.unim2rec import UniM2Rec
from components.training.config import TrainingConfig
from components.training.loop import World
from pipelines.pretraining_job import DomainFolders, PretrainingJob
from pipelines.training_job import TrainingJob
from tests.components.teachers.test_unim2rec import pictures
from tests.components.teachers.worlds import SMALL, planted
from tests.pipelines.test_pretrain import write_prepared

TRAINING = TrainingConfig(epochs=3, batch_size=16, learning_rate=3e-3, patience=None)


def write_inputs(folder: Path, name: str, num_items: int, seed: int, pictured: bool = True) -> DomainFolders:
    sequences, catalog = planted(num_items=num_items, num_users=30, seed=seed)
    features = folder / f"features-{name}"
    features.mkdir(parents=True)
    np.save(features / "text.npy", catalog.features["text"])
    if pictured:
        np.save(features / "image.npy", pictures(num_items, seed))
    return DomainFolders(name, write_prepared(folder / f"prepare-{name}", sequences, num_items), features)


def test_a_teacher_starts_from_domains_with_and_without_pictures(tmp_path: Path) -> None:
    domains = (write_inputs(tmp_path, "food", 24, 0), write_inputs(tmp_path, "books", 16, 1, pictured=False))
    (tmp_path / "pre").mkdir()
    job = PretrainingJob(
        kind="unim2rec",
        family="teacher",
        arguments={**SMALL, "mode": "inductive"},
        training=TRAINING,
        contrastive=ContrastiveConfig(),
        seed=3,
        folder=tmp_path / "pre",
        work=tmp_path / "work",
        domains=domains,
    )
    job.run(World())
    model = load_model(tmp_path / "pre")
    assert isinstance(model, UniM2Rec)
    assert model.num_items == 40
    assert model.items.has_image[1:25].sum() == 16
    assert not model.items.has_image[25:].any()

    own = write_inputs(tmp_path, "own", 28, 2)
    (tmp_path / "teach").mkdir()
    tuned = TrainingJob(
        kind="unim2rec",
        family="teacher",
        arguments={**SMALL, "mode": "transductive", "tune": "adaptor"},
        training=replace_epochs(1),
        seed=0,
        prepared=own.prepared,
        features=own.features,
        pretrained=tmp_path / "pre",
        folder=tmp_path / "teach",
        work=tmp_path / "teach-work",
    )
    tuned.run(World())
    before, after = (load_file(tmp_path / name / MODEL_FILE) for name in ("pre", "teach"))
    for name in after:
        if name.startswith(("encoder.blocks", "encoder.position_embedding")):
            assert torch.equal(before[name], after[name]), name
    gap = (before["items.image_tower.adaptor.weight"] - after["items.image_tower.adaptor.weight"]).abs().max()
    assert 0 < gap < 0.02  # a few steps from there, not from a new start
    assert after["items.image"].shape == (29, 6)


def replace_epochs(epochs: int) -> TrainingConfig:
    return TRAINING.model_copy(update={"epochs": epochs})


def test_users_of_two_domains_give_more_sequences(tmp_path: Path) -> None:
    food, books = write_inputs(tmp_path, "food", 24, 0), write_inputs(tmp_path, "books", 16, 1)
    arguments = {**SMALL, "mode": "inductive"}
    job = PretrainingJob(
        kind="unim2rec",
        family="teacher",
        arguments=arguments,
        training=TRAINING,
        contrastive=ContrastiveConfig(),
        seed=3,
        folder=tmp_path,
        work=tmp_path / "work",
        domains=(food, books),
    )
    assert len(job._read().sequences) == 60  # the logs have no times
    add_times(food.prepared)
    add_times(books.prepared)
    assert len(job._read().sequences) == 90
    plain = replace(job, kind="unisrec")._read()
    assert len(plain.sequences) == 60
    assert plain.image is None


def add_times(prepared: Path) -> None:
    import polars as pl

    (file,) = (prepared / "sequences").glob("*.parquet")
    rows = pl.read_parquet(file)
    rows.with_columns(pl.int_ranges(0, pl.col("items").list.len()).alias("timestamps")).write_parquet(file)
