"""Recformer through the jobs of the run: attributes from the prepared set, pre-training, tuning, annotation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from components.artifacts.models import load_model
from components.data.prepared import PreparedSet
from components.distillation.annotation import training_states
from components.errors import ConfigError
from components.schema import ITEMS_FILE, MANIFEST_FILE, MODEL_FILE
from components.teachers.pretraining import ContrastiveConfig
from components.teachers.recformer.model import Recformer
from components.training.config import TrainingConfig
from components.training.loop import World
from pipelines import pretrain
from pipelines.pretraining_job import DomainFolders
from pipelines.recformer_pretraining_job import FULL, RecformerPretrainingJob
from pipelines.training_job import TrainingJob
from tests.components.teachers.recformer.language_models import shared_bert
from tests.components.teachers.worlds import planted
from tests.pipelines.run_configs import PLAIN_RUN, make_config
from tests.pipelines.test_pretrain import write_prepared

TRAINING = TrainingConfig(epochs=4, batch_size=16, learning_rate=5e-3, optimizer="adamw", patience=None)


def prepared(folder: Path, items: int, seed: int, columns: dict[str, Any] | None = None) -> Path:
    """A prepared set with a title and a brand; `columns` replaces them."""
    sequences, catalog = planted(num_items=items, num_users=30, seed=seed)
    write_prepared(folder, sequences, items)
    titles = catalog.attributes["title"]  # type: ignore[index]
    columns = columns or {"brand": [["old", "new"], None] * (items // 2), "title": titles, "price": [3.5] * items}
    pl.read_parquet(folder / ITEMS_FILE).with_columns(**{n: pl.Series(v) for n, v in columns.items()}).write_parquet(
        folder / ITEMS_FILE
    )
    manifest = {"schema_version": 1, "items": {"text_columns": ["title", "brand"]}}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder


def arguments(**changes: Any) -> dict[str, Any]:
    return {"backbone": shared_bert(), "max_length": 8, **changes}


def tuning(folder: Path, source: Path, **changes: Any) -> TrainingJob:
    (folder / "out").mkdir(parents=True)
    settings: dict[str, Any] = {"arguments": arguments(), "training": TRAINING, **changes}
    return TrainingJob(
        kind="recformer",
        family="teacher",
        seed=0,
        prepared=source,
        folder=folder / "out",
        work=folder / "work",
        **settings,
    )


def pretraining(folder: Path, *domains: Path, **changes: Any) -> RecformerPretrainingJob:
    (folder / "out").mkdir(parents=True)
    return RecformerPretrainingJob(
        kind="recformer",
        family="teacher",
        arguments=arguments(**FULL),
        training=TRAINING,
        contrastive=ContrastiveConfig(**changes),
        seed=0,
        folder=folder / "out",
        work=folder / "work",
        domains=tuple(DomainFolders(domain.name, domain, None) for domain in domains),
    )


TEXTS = {**PLAIN_RUN, "input": {"interactions": "log.csv", "items": "items.csv"}, "features": {}}


def test_it_is_trained_as_its_authors_do_unless_told_otherwise(tmp_path: Path) -> None:
    teachers = {"words": {"kind": "recformer", "training": {"epochs": 7, "patience": 2}}, "uni": {"kind": "unisrec"}}
    config = make_config(tmp_path, {**TEXTS, "teachers": teachers})
    training = config.teachers["words"].training
    assert (training.epochs, training.patience, training.validate_every) == (7, 2, 3)
    assert (training.optimizer, training.learning_rate, training.warmup_steps) == ("adamw", 5e-5, 100)
    assert config.teachers["uni"].training == TrainingConfig()
    with pytest.raises(ConfigError, match="unknown key"):
        make_config(tmp_path, {**TEXTS, "teachers": {"words": {"kind": "recformer", "training": {"epoch": 7}}}})


def test_attributes_are_the_text_columns_in_their_order(tmp_path: Path) -> None:
    attributes = PreparedSet(prepared(tmp_path / "set", 24, 0)).attributes
    assert list(attributes) == ["title", "brand"]
    assert attributes["title"][:2] == ["red 0", "green 1"]
    assert attributes["brand"][:2] == ["old new", ""]


def test_a_set_without_text_columns_has_its_text_or_nothing(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "set", 24, 0, {"text": ["red hat."] * 24})
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema_version": 1}))
    assert PreparedSet(folder).attributes == {"text": ["red hat."] * 24}
    items = pl.read_parquet(folder / ITEMS_FILE)
    items.drop("text").write_parquet(folder / ITEMS_FILE)
    assert PreparedSet(folder).attributes == {}


def test_tuning_writes_a_teacher_that_annotates(tmp_path: Path) -> None:
    source = prepared(tmp_path / "set", 24, 0)
    timing = tuning(tmp_path / "teach", source).run(World())
    assert timing["targets_per_second"] > 0
    out = tmp_path / "teach" / "out"
    epochs = json.loads((out / "history.json").read_text())["epochs"]
    assert len(epochs) == 8  # both stages
    assert epochs[-1]["loss"] < 0.9 * epochs[0]["loss"]
    model = load_model(out)
    assert isinstance(model, Recformer)
    assert model.item_vectors().shape == (25, 16)
    states = training_states(model, PreparedSet(source).sequences)
    assert states.dtype == np.float16
    assert np.isfinite(states).all()


def test_a_set_without_any_text_is_refused_before_training(tmp_path: Path) -> None:
    source = prepared(tmp_path / "set", 24, 0, {"title": [None] * 24, "brand": ["  "] * 24})
    with pytest.raises(ConfigError, match=r"recformer needs item texts.*title, brand"):
        tuning(tmp_path / "teach", source).run(World())


@pytest.mark.parametrize("weight", [0.1, 0.0])
def test_pretraining_joins_domains_and_tuning_begins_from_it(weight: float, tmp_path: Path) -> None:
    food, books = prepared(tmp_path / "food", 24, 1), prepared(tmp_path / "books", 16, 2)
    pretraining(tmp_path / "pre", food, books, mlm_weight=weight).run(World())
    out = tmp_path / "pre" / "out"
    loaded = load_model(out)
    assert isinstance(loaded, Recformer)
    assert loaded.num_items == 24 + 16
    assert loaded.matrix.norm(dim=1).min() > 0.99
    frozen = TRAINING.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    own = prepared(tmp_path / "own", 28, 0)
    tuning(tmp_path / "teach", own, pretrained=out, training=frozen).run(World())
    before, after = (load_file(folder / MODEL_FILE) for folder in (out, tmp_path / "teach" / "out"))
    for name, value in before.items():
        if name.startswith("backbone."):
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-9)
    assert after["matrix"].shape == (28, 16)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    food = prepared(tmp_path / "food", 24, 1)
    for name in ("a", "b"):
        pretraining(tmp_path / name, food).run(World())
    assert (tmp_path / "a/out" / MODEL_FILE).read_bytes() == (tmp_path / "b/out" / MODEL_FILE).read_bytes()


def test_the_stage_needs_no_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[RecformerPretrainingJob] = []
    monkeypatch.setattr(pretrain, "run_training", lambda job, *_: jobs.append(job) or {})
    inputs = {"prepare": prepared(tmp_path / "own", 28, 0), "prepare/food": prepared(tmp_path / "food", 24, 1)}
    teacher = SimpleNamespace(kind="recformer", arguments=arguments(lora_rank=4))
    config = SimpleNamespace(
        teachers={"words": teacher},
        features=None,
        domains={"food": None},
        pretrain=SimpleNamespace(contrastive=ContrastiveConfig(), max_overlap=1.0),
        evaluate=SimpleNamespace(mask_history=False),
        cluster_of=lambda name: None,
        pretraining_of=lambda name: TRAINING,
    )
    (tmp_path / "out").mkdir()
    context = SimpleNamespace(
        config=config,
        name="words",
        seed=0,
        folder=tmp_path / "out",
        work=tmp_path / "work",
        input=inputs.__getitem__,
        inputs=inputs,
        timing={},
        progress=SimpleNamespace(note=lambda text: None),
    )
    pretrain.run(context)  # type: ignore[arg-type]
    assert isinstance(jobs[0], RecformerPretrainingJob)
    assert jobs[0].arguments["lora_rank"] is None
    assert [folders.features for folders in jobs[0].domains] == [None]
