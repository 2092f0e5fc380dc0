"""Stage ``pretrain`` and what tuning takes from it."""

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

from components.artifacts.format import seal
from components.artifacts.models import load_model
from components.data.flat_sequences import Sequences
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, ConfigError, DataError
from components.schema import (
    COUNT,
    ITEM,
    ITEM_ID,
    ITEMS,
    ITEMS_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    SEQUENCES_FOLDER,
    TEXT,
    TIMESTAMPS,
    TRAIN_END,
    USER,
    USER_ID,
    VALID_END,
)
from components.teachers.pretraining import ContrastiveConfig
from components.training.config import TrainingConfig
from components.training.loop import World
from pipelines import pretrain, teach
from pipelines.overlap import compare, compare_artifact
from pipelines.pretraining_job import DomainFolders, PretrainingJob
from pipelines.training_job import TrainingJob
from tests.components.teachers.worlds import SMALL, planted

TRAINING = TrainingConfig(epochs=12, batch_size=16, learning_rate=3e-3, patience=None)


def write_prepared(folder: Path, sequences: Sequences, num_items: int, texts: list[str] | None = None) -> Path:
    (folder / SEQUENCES_FOLDER).mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema_version": 1}))
    numbers = list(range(1, num_items + 1))
    items = pl.DataFrame({ITEM: numbers, ITEM_ID: [str(n) for n in numbers], COUNT: numbers})
    items.with_columns(pl.Series(TEXT, texts or [f"{folder.name} {n}" for n in numbers])).write_parquet(
        folder / ITEMS_FILE
    )
    rows = np.split(sequences.items, sequences.offsets[1:-1])
    pl.DataFrame(
        {
            USER: sequences.users,
            USER_ID: [f"u{user}" for user in sequences.users],
            ITEMS: pl.Series([row.tolist() for row in rows], dtype=pl.List(pl.Int32)),
            TIMESTAMPS: pl.Series([None] * len(rows), dtype=pl.List(pl.Int64)),
            TRAIN_END: sequences.train_end,
            VALID_END: sequences.valid_end,
        }
    ).write_parquet(folder / SEQUENCES_FOLDER / "part-0.parquet")
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Two domains and a target, each with its prepared set and text vectors."""
    found = {}
    for seed, (name, items) in enumerate({"/food": 24, "/books": 16, "": 28}.items()):
        sequences, catalog = planted(num_items=items, num_users=30, seed=seed)
        found[f"prepare{name}"] = write_prepared(tmp_path / f"prepare{name.replace('/', '-')}", sequences, items)
        found[f"features{name}"] = tmp_path / f"features{name.replace('/', '-')}"
        found[f"features{name}"].mkdir()
        np.save(found[f"features{name}"] / "text.npy", catalog.features["text"])
        if name:
            np.save(found[f"features{name}"] / "text_words.npy", catalog.features["text"] * 0.9)
    return found


def job(inputs: dict[str, Path], folder: Path) -> PretrainingJob:
    (folder / "out").mkdir(parents=True)
    return PretrainingJob(
        kind="unisrec",
        family="teacher",
        arguments={**SMALL, "mode": "inductive"},
        training=TRAINING,
        contrastive=ContrastiveConfig(),
        seed=3,
        folder=folder / "out",
        work=folder / "work",
        domains=tuple(DomainFolders(n, inputs[f"prepare/{n}"], inputs[f"features/{n}"]) for n in ("food", "books")),
    )


def test_both_domains_are_learnt_and_the_artifact_ranks_them(inputs: dict[str, Path], tmp_path: Path) -> None:
    timing = job(inputs, tmp_path / "a").run(World())
    assert timing["targets_per_second"] > 0
    out = tmp_path / "a" / "out"
    epochs = json.loads((out / "history.json").read_text())["epochs"]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
    assert json.loads((out / "metrics.json").read_text())["valid_ndcg@10"] == max(e["valid_ndcg@10"] for e in epochs)
    assert load_model(out).num_items == 24 + 16


def test_the_same_seed_gives_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        job(inputs, tmp_path / name).run(World())
    assert (tmp_path / "a/out" / MODEL_FILE).read_bytes() == (tmp_path / "b/out" / MODEL_FILE).read_bytes()


def test_a_teacher_of_another_catalog_starts_from_the_weights(inputs: dict[str, Path], tmp_path: Path) -> None:
    job(inputs, tmp_path / "pre").run(World())
    (tmp_path / "teach").mkdir()
    tuned = TrainingJob(
        kind="unisrec",
        family="teacher",
        arguments={**SMALL, "mode": "transductive", "tune": "adaptor"},
        training=TrainingConfig(epochs=1, batch_size=16),
        seed=0,
        prepared=inputs["prepare"],
        features=inputs["features"],
        pretrained=tmp_path / "pre" / "out",
        folder=tmp_path / "teach",
        work=tmp_path / "teach-work",
    )
    tuned.run(World())
    before, after = (load_file(folder / MODEL_FILE) for folder in (tmp_path / "pre" / "out", tmp_path / "teach"))
    for name in after:
        if name.startswith(("encoder.blocks", "encoder.position_embedding")):
            assert torch.equal(before[name], after[name]), name
    adaptor = "items.adaptor.weight"
    assert (before[adaptor] - after[adaptor]).abs().max() < 0.02  # a few steps from there, not from a new start
    assert not torch.equal(before[adaptor], after[adaptor])
    assert after["items.text"].shape == (29, 16)


def test_missing_text_vectors_are_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    (inputs["features/books"] / "text.npy").unlink()
    with pytest.raises(ArtifactError, match=r"features-books/text\.npy: missing"):
        job(inputs, tmp_path / "a").run(World())


def context(inputs: dict[str, Path], folder: Path, **changes: Any) -> Any:
    teacher = SimpleNamespace(kind="unisrec", arguments={**SMALL, "mode": "transductive", "tune": "adaptor"})
    config = {
        "teachers": {"uni": teacher},
        "features": object(),
        "pretrain": SimpleNamespace(contrastive=ContrastiveConfig(item_drop=0.3), max_overlap=0.05),
        "domains": {"food": None, "books": None},
        "evaluate": SimpleNamespace(mask_history=False),
        "cluster_of": lambda _: SimpleNamespace(),
        "pretraining_of": lambda _: TRAINING,
    }
    return SimpleNamespace(
        config=SimpleNamespace(**(config | changes)),
        name="uni",
        folder=folder,
        work=folder,
        seed=5,
        input=inputs.__getitem__,
        progress=None,
        timing={},
    )


def test_the_stage_pretrains_the_whole_inductive_model(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[PretrainingJob] = []
    monkeypatch.setattr(pretrain, "run_training", lambda job, *rest: jobs.append(job) or {"targets_per_second": 7.0})
    stage = context(inputs, tmp_path)
    pretrain.run(stage)
    (made,) = jobs
    assert made.arguments == {**SMALL, "mode": "inductive", "tune": "full"}
    assert made.contrastive.item_drop == 0.3
    assert made.seed == 5
    assert [domain.name for domain in made.domains] == ["food", "books"]
    assert made.domains[1].read().dropped_text is not None
    assert stage.timing == {"targets_per_second": 7.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrain": None}, r"teachers\.uni\.pretrained: true needs the section `pretrain`"),
        ({"features": None}, "add a section `features`"),
        (
            {"teachers": {"uni": SimpleNamespace(kind="other", arguments={})}},
            "kind 'other' cannot be pre-trained; kinds that can: .*unisrec",
        ),
    ],
)
def test_what_is_missing_is_named(
    inputs: dict[str, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain.run(context(inputs, tmp_path, **changes))


def retitle(prepared: Path, texts: dict[int, str]) -> None:
    """Give items, by number, another text."""
    items = pl.read_parquet(prepared / ITEMS_FILE)
    items.with_columns(
        pl.col(ITEM).replace_strict(texts, default=pl.col(TEXT), return_dtype=pl.String).alias(TEXT)
    ).write_parquet(prepared / ITEMS_FILE)


def test_the_runs_own_items_are_left_out_of_the_domains(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retitle(inputs["prepare"], {4: "Red  Lamp"})
    retitle(inputs["prepare/food"], {2: "red lamp", 7: "RED LAMP"})
    jobs: list[PretrainingJob] = []
    monkeypatch.setattr(pretrain, "run_training", lambda job, *rest: jobs.append(job) or {})
    stage = context(inputs, tmp_path)
    stage.progress = SimpleNamespace(note=lambda text: notes.append(text))
    notes: list[str] = []
    pretrain.run(stage)
    food, books = jobs[0].domains
    assert food.left_out == (2, 7)
    assert books.left_out == ()
    assert not set(food.read().sequences.items.tolist()) & {2, 7}
    assert notes == ["1 of the run's own 28 items (3.6%) stand in domains (food 2); left out there"]
    extra = json.loads((tmp_path / "manifest_extra.json").read_text())
    assert extra["overlap"]["domains"] == {"food": {"items": 24, "left_out": 2}, "books": {"items": 16, "left_out": 0}}
    # A later run on the same items finds nothing: what was left out was not learnt.
    assert compare_artifact(PreparedSet(inputs["prepare"]), tmp_path).found == 0
    retitle(inputs["prepare"], {5: f"{inputs['prepare/books'].name} 3"})
    assert compare_artifact(PreparedSet(inputs["prepare"]), tmp_path).left_out["books"] == (3,)


def test_too_many_of_the_runs_own_items_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    retitle(inputs["prepare"], {n: f"lamp {n}" for n in range(1, 5)})
    retitle(inputs["prepare/food"], {n: f"lamp {n}" for n in range(1, 5)})
    with pytest.raises(
        DataError, match=r"4 of the run's own 28 items \(14\.3%\) .* \(food 4\), .*max_overlap is 5\.0%"
    ):
        pretrain.run(context(inputs, tmp_path))


def test_an_artifact_of_another_run_is_checked(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pre = job(inputs, tmp_path / "pre")
    pre.run(World())
    domains = {name: PreparedSet(inputs[f"prepare/{name}"]) for name in ("food", "books")}
    compare(PreparedSet(inputs["prepare"]), domains).write_sources(pre.folder)
    seal(pre.folder, {})
    teacher = SimpleNamespace(kind="unisrec", pretrained=str(pre.folder))
    stage = context(inputs, tmp_path, teachers={"uni": teacher})
    assert teach._pretrained(stage) == pre.folder
    monkeypatch.chdir(tmp_path)
    teacher.pretrained = str(pre.folder.relative_to(tmp_path))
    assert teach._pretrained(stage) == pre.folder  # whole: a worker has another current folder
    teacher.kind = "other"
    with pytest.raises(ArtifactError, match=r"teachers\.uni\.pretrained: .* holds a unisrec, expected a other"):
        teach._pretrained(stage)
    teacher.kind = "unisrec"
    retitle(inputs["prepare"], {1: f"{inputs['prepare/food'].name} 1", 2: f"{inputs['prepare/food'].name} 2"})
    with pytest.raises(DataError, match=r"2 of the run's own 28 items .* knows what this run is tested on"):
        teach._pretrained(stage)
    (pre.folder / MODEL_FILE).write_bytes(b"short")
    with pytest.raises(ArtifactError, match="sha256"):
        teach._pretrained(stage)
