"""Teach, annotate and distill on a tiny set, through Ray, from the stages' own functions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.artifacts.format import seal
from components.artifacts.models import load_model
from components.data.batching import history_batch
from components.data.prepared import PreparedSet
from components.distillation.annotation import case_states, training_states
from components.errors import ArtifactError, ConfigError
from components.teachers.external import ExternalTeacher
from pipelines import annotate, distill, teach
from pipelines.annotate import SequenceAnnotator, Teacher
from pipelines.config import RunConfig
from pipelines.stages import EXTRA_MANIFEST_FILE, StageContext
from tests.pipelines.recorder import Recorder
from tests.pipelines.run_configs import make_config
from tests.worlds import random_sequences

ITEMS, USERS = 25, 60
SMALL = {"dim": 8, "inner_dim": 8, "num_experts": 2, "max_length": 6}
CONTENT = {
    "name": "tiny",
    "data": "/data",
    "input": {"interactions": "log.csv", "items": "items.csv"},
    "features": {},
    "teachers": {
        "text": {"kind": "unisrec", "mode": "inductive", **SMALL, "training": {"epochs": 2, "batch_size": 16}},
        "id": {"kind": "unisrec", "mode": "transductive", **SMALL, "training": {"epochs": 2, "batch_size": 16}},
    },
    "student": {"kind": "sasrec", "dim": 8, "inner_dim": 8, "max_length": 6},
    "training": {"epochs": 2, "batch_size": 16, "checkpoint_seconds": 0},
    "distillation": {"temperature": 0.1},
    "variants": {"beyond": {"item_geometry": 0.5}},
}


def write_prepared(folder: Path) -> None:
    data = random_sequences(USERS, ITEMS, 14, cyclic=0.8)
    (folder / "sequences").mkdir(parents=True)
    rows = [data.items[data.offsets[u] : data.offsets[u + 1]].tolist() for u in range(USERS)]
    table = pl.DataFrame(
        {
            "user": data.users,
            "user_id": [f"u{u}" for u in data.users],
            "items": pl.Series(rows, dtype=pl.List(pl.Int32)),
            "timestamps": pl.Series([None] * USERS, dtype=pl.List(pl.Int64)),
            "ratings": pl.Series([None] * USERS, dtype=pl.List(pl.Float32)),
            "train_end": data.train_end,
            "valid_end": data.valid_end,
        }
    )
    for part in range(3):  # several files, so that order and offsets matter
        table[part * 20 : (part + 1) * 20].write_parquet(folder / "sequences" / f"part-{part:05d}.parquet")
    numbers = np.arange(1, ITEMS + 1, dtype=np.int32)
    pl.DataFrame(
        {"item": numbers, "item_id": [f"i{n}" for n in numbers], "count": numbers[::-1].astype(np.int64)}
    ).write_parquet(folder / "items.parquet")
    sealed(folder)


def sealed(folder: Path) -> Path:
    seal(folder, {})
    return folder


class Run:
    """Calls stages one after another, as the executor would."""

    def __init__(self, root: Path, *overrides: str) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.config: RunConfig = make_config(root, CONTENT, *overrides)
        write_prepared(root / "prepare")
        (root / "features").mkdir()
        text = np.random.default_rng(0).normal(size=(ITEMS + 1, 12)).astype(np.float32)
        np.save(root / "features" / "text.npy", text, allow_pickle=False)

    def call(self, module: object, node: str, *inputs: str) -> tuple[Path, Recorder]:
        progress, stage = Recorder(), node.split("/", 1)
        folder, work = self.root / node, self.root / "work" / node
        folder.mkdir(parents=True)
        work.mkdir(parents=True)
        folders = {name: self.root / name for name in inputs}
        name = stage[1] if len(stage) > 1 else ""
        context = StageContext(self.config, node, name, folder, work, folders, progress)
        module.run(context)  # type: ignore[attr-defined]
        return sealed(folder), progress


@pytest.fixture(scope="module")
def run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("run"))
    for name in ("text", "id"):
        run.call(teach, f"teach/{name}", "prepare", "features")
    run.call(annotate, "annotate", "prepare", "teach/text", "teach/id")
    return run


def test_every_instance_has_the_states_of_its_own_history(run: Run) -> None:
    annotated, prepared = PreparedSet(run.root / "annotate"), PreparedSet(run.root / "prepare")
    assert annotated.teachers == ["text", "id"]
    assert annotated.sequences.num_instances == prepared.sequences.num_instances
    model = load_model(run.root / "teach" / "text")
    np.testing.assert_allclose(annotated.states("text"), training_states(model, prepared.sequences), atol=2e-3)
    cases = prepared.sequences.cases("valid")
    valid = annotated.valid_states("text")
    assert valid is not None
    np.testing.assert_allclose(valid, case_states(model, cases), atol=2e-3)
    assert prepared.valid_states("text") is None
    extra = json.loads((run.root / "annotate" / EXTRA_MANIFEST_FILE).read_text())
    assert extra["items"]["text_columns"] == prepared.text_columns  # students that read fields find them
    strengths = json.loads((run.root / "annotate" / "teachers.json").read_text())["teachers"]
    metrics = json.loads((run.root / "teach" / "text" / "metrics.json").read_text())
    assert strengths[0]["strength"] == metrics["valid_ndcg@10"]


def test_a_teacher_of_other_items_is_refused_with_both_counts(run: Run, tmp_path: Path) -> None:
    smaller = tmp_path / "prepare"
    shutil.copytree(run.root / "prepare", smaller)
    pl.read_parquet(smaller / "items.parquet").head(ITEMS - 1).write_parquet(smaller / "items.parquet")
    inputs = {"prepare": smaller, **{f"teach/{name}": run.root / "teach" / name for name in ("text", "id")}}
    (tmp_path / "out").mkdir()
    context = StageContext(run.config, "annotate", "", tmp_path / "out", tmp_path, inputs, Recorder())
    with pytest.raises(ArtifactError, match=r"teacher text: .* ranks 25 items, the prepared set has 24"):
        annotate.run(context)


@pytest.mark.parametrize("name", ["text", "id"])
def test_t10_cached_logits_are_the_teachers_own_ranking_scores(run: Run, name: str) -> None:
    annotated = PreparedSet(run.root / "annotate")
    model = load_model(run.root / "teach" / name)
    items = np.load(run.root / "annotate" / "teachers" / name / "items.npy").astype(np.float32)
    data, states = annotated.sequences, annotated.states(name).astype(np.float32)
    generator = np.random.default_rng(0)
    checked = 0
    while checked < 100:
        row = int(generator.integers(len(data)))
        history = data.training_items(row)
        if not 2 <= len(history) <= model.max_length + 1:
            continue  # the states of longer histories come from overlapping windows
        t = int(generator.integers(len(history) - 1))
        with torch.no_grad():
            own = model.all_scores(history_batch([history[: t + 1]], model.max_length))[0, 1:] * model.temperature
        cached = items[1:] @ states[data.instance_offsets[row] + t]
        np.testing.assert_allclose(cached, own.numpy(), atol=3e-3)
        checked += 1


def test_students_learn_alone_and_after_teachers(run: Run) -> None:
    plain, progress = run.call(distill, "distill/plain/seed-0", "prepare")
    taught, _ = run.call(distill, "distill/prm-kd/seed-0", "annotate")
    assert progress.total == sum(progress.done) > 0
    report = json.loads((taught / "distillation.json").read_text())
    assert report["teachers"] == ["text", "id"]
    assert sum(report["mean_weights"].values()) == pytest.approx(1.0)
    assert not (plain / "distillation.json").exists()
    first, second = load_model(plain), load_model(taught)
    assert first.parameter_parts() == second.parameter_parts()
    assert not torch.equal(first.state_dict()["item_embedding.weight"], second.state_dict()["item_embedding.weight"])
    beyond, _ = run.call(distill, "distill/beyond/seed-0", "annotate")
    third = load_model(beyond).state_dict()["item_embedding.weight"]
    assert not torch.equal(second.state_dict()["item_embedding.weight"], third)
    report = json.loads((beyond / "distillation.json").read_text())
    assert report["mean_weights"] == pytest.approx(report["base_weights"])  # two teachers disagree equally


def test_baselines_count_and_have_no_history(run: Run) -> None:
    folder, _ = run.call(distill, "distill/markov/seed-0", "prepare")
    assert json.loads((folder / "metrics.json").read_text())["valid_ndcg@10"] > 0.2  # successors are planted
    assert not (folder / "history.json").exists()


def test_an_external_teacher_teaches_by_two_arrays(run: Run, tmp_path: Path) -> None:
    annotated = run.root / "annotate"
    states = PreparedSet(annotated).states("text").astype(np.float32)
    np.save(tmp_path / "states.npy", states)
    (tmp_path / "items.npy").write_bytes((annotated / "teachers" / "text" / "items.npy").read_bytes())
    external = Run(tmp_path / "run")
    arrays = {"kind": "external", "items": str(tmp_path / "items.npy"), "states": str(tmp_path / "states.npy")}
    content = {**CONTENT, "teachers": {"mine": {**arrays, "strength": 0.1}}}
    external.config = make_config(tmp_path, content)
    external.call(teach, "teach/mine", "prepare")
    external.call(annotate, "annotate", "prepare", "teach/mine")
    annotated_again = PreparedSet(tmp_path / "run" / "annotate")
    np.testing.assert_array_equal(annotated_again.states("mine"), states.astype(np.float16))
    assert annotated_again.valid_states("mine") is None
    external.config = make_config(tmp_path, {**CONTENT, "teachers": {"mine": arrays}})
    inputs = {"prepare": tmp_path / "run" / "prepare"}
    context = StageContext(external.config, "teach/mine", "mine", tmp_path, tmp_path, inputs, Recorder())
    with pytest.raises(ConfigError, match=r"teachers\.mine\.strength: missing"):
        teach.run(context)


def test_states_of_external_validation_histories_go_to_their_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray: the third user has no validation case; files and row groups begin in the middle of all cases."""
    monkeypatch.setattr(annotate, "ROWS_PER_GROUP", 7)
    write_prepared(tmp_path / "prepare")
    first = tmp_path / "prepare" / "sequences" / "part-00000.parquet"
    table = pl.read_parquet(first)
    third = pl.col("user") == table["user"][2]
    train_end = pl.when(third).then(pl.col("items").list.len()).otherwise("train_end").alias("train_end")
    table.with_columns(train_end).cast(table.schema).write_parquet(first)
    sequences = PreparedSet(sealed(tmp_path / "prepare")).sequences
    cases = sequences.cases("valid")
    assert len(cases) == USERS - 1
    (tmp_path / "mine").mkdir()
    arrays = ExternalTeacher(
        items=np.zeros((ITEMS + 1, 2), np.float32),
        states=np.arange(2 * sequences.num_instances, dtype=np.float32).reshape(-1, 2),
        valid_states=np.stack([cases.targets, cases.rows], axis=1).astype(np.float32),
    )
    arrays.save(tmp_path / "mine")
    target = tmp_path / "annotate"
    shutil.copytree(tmp_path / "prepare", target)
    shutil.rmtree(target / "sequences")
    (target / "sequences").mkdir()
    annotator = SequenceAnnotator([Teacher("mine", tmp_path / "mine")], target / "sequences", gpu=False)
    monkeypatch.setattr(annotate, "SMALLEST_PIECE", 9)
    work = annotate.pieces(PreparedSet(tmp_path / "prepare"))
    assert [(piece["first"], piece["stop"]) for piece in work] == [(0, 9), (9, 18), (18, 20)] * 3
    for piece in reversed(work):
        annotator({key: np.array([value]) for key, value in piece.items()})
    annotated = PreparedSet(target)
    valid = annotated.valid_states("mine")
    assert valid is not None
    np.testing.assert_array_equal(valid, arrays.valid_states)
    np.testing.assert_array_equal(annotated.states("mine"), arrays.states.astype(np.float16))
    lists = pl.concat(pl.read_parquet(file) for file in annotated.sequence_files)["valid_state_mine"].list.len()
    assert lists.to_list() == [0 if row == 2 else 2 for row in range(USERS)]


@pytest.mark.slow
def test_two_workers_through_ray_train_reach_the_loss_of_one(run: Run, tmp_path: Path) -> None:
    pair = Run(tmp_path, "cluster.num_workers=2", "cluster.cpus_per_worker=0.5", "student.dropout=0.0")
    alone = Run(tmp_path / "alone", "student.dropout=0.0")
    losses = []
    for each in (pair, alone):
        folder, progress = each.call(distill, "distill/plain/seed-0", "prepare")
        assert sum(progress.done) == progress.total
        losses.append([row["loss"] for row in json.loads((folder / "history.json").read_text())["epochs"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
