"""Students that begin with a trained one: of the same catalog, of another, and what is refused before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from components.artifacts.models import load_model
from components.data.batching import history_batch
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, ConfigError, DistilrecError
from components.students import STUDENTS
from components.training.config import TrainingConfig
from components.training.loop import World
from pipelines.config import RunConfig
from pipelines.fingerprint import fingerprints
from pipelines.graph import build_graph
from pipelines.preflight import check_sources
from pipelines.training_job import TrainingJob, build, item_rows
from tests.pipelines.run_configs import make_config
from tests.pipelines.test_teach_and_distill import CONTENT, ITEMS, sealed, write_prepared

ARGUMENTS = (
    STUDENTS["sasrec"].config.model_validate({"dim": 8, "inner_dim": 8, "max_length": 6}).model_dump(mode="json")
)


def make_job(prepared: Path, folder: Path, start: Path | None = None, **arguments: Any) -> TrainingJob:
    folder.mkdir(parents=True)
    return TrainingJob(
        kind="sasrec",
        family="student",
        arguments={**ARGUMENTS, **arguments},
        training=TrainingConfig(epochs=2, batch_size=16),
        seed=0,
        folder=folder,
        work=folder.with_name(f"{folder.name}-work"),
        prepared=prepared,
        start=start,
    )


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The artifact of a student in a run."""
    run = tmp_path / "runs" / "first"
    write_prepared(run / "prepare")
    folder = run / "distill" / "plain" / "seed-0"
    job = make_job(run / "prepare", folder)
    job.work.mkdir()
    job.run(World())
    return sealed(folder)


@torch.no_grad()
def scores(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval().all_scores(history_batch([[3, 8], [1]], 6))[:, 1:]
    return found


def test_a_student_of_the_same_catalog_begins_where_the_other_ended(trained: Path, tmp_path: Path) -> None:
    prepared, source = trained.parents[2] / "prepare", scores(load_model(trained))
    same = build(make_job(prepared, tmp_path / "same", trained))
    assert torch.equal(scores(same.model), source)
    small = make_job(prepared, tmp_path / "small", trained, compression={"output": "tied", "factor": 1})
    assert torch.allclose(scores(build(small).model), source, atol=1e-5)
    fresh = build(make_job(prepared, tmp_path / "fresh"))
    assert not torch.allclose(scores(fresh.model), source, atol=1e-3)


def test_items_are_known_by_their_ids(trained: Path, tmp_path: Path) -> None:
    write_prepared(tmp_path / "other")
    items = pl.read_parquet(tmp_path / "other" / "items.parquet")
    ids = [f"new{number}" if number % 5 == 0 else f"i{ITEMS + 1 - number}" for number in range(1, ITEMS + 1)]
    items.with_columns(pl.Series("item_id", ids)).write_parquet(tmp_path / "other" / "items.parquet")
    sealed(tmp_path / "other")
    rows = item_rows(trained, PreparedSet(tmp_path / "other"))
    assert rows.tolist() == [0 if number % 5 == 0 else ITEMS + 1 - number for number in range(1, ITEMS + 1)]
    model = build(make_job(tmp_path / "other", tmp_path / "student", trained)).model
    known = np.flatnonzero(rows)
    mine, theirs = model.item_embedding.weight[1:], load_model(trained).item_embedding.weight  # type: ignore[union-attr,index]
    assert torch.equal(mine[known], theirs[rows[known]])  # type: ignore[index]


def config_with(tmp_path: Path, start: Path, **student: Any) -> RunConfig:
    plain = {key: value for key, value in CONTENT.items() if key not in ("teachers", "distillation", "variants")}
    return make_config(
        tmp_path, {**plain, "name": "first", "student": {**CONTENT["student"], **student}}, f"start={start}"
    )


def check(config: RunConfig) -> None:
    check_sources(config, [node for node in build_graph(config) if node.stage == "distill"])


def test_what_does_not_fit_stops_the_run_before_training(trained: Path, tmp_path: Path) -> None:
    check(config_with(tmp_path, trained))
    check(config_with(tmp_path, trained, compression={"sharing": "ab"}))
    for student, error, message in (
        ({"kind": "gru4rec", "inner_dim": None}, ArtifactError, "holds a sasrec, expected a gru4rec"),
        ({"dim": 12}, ConfigError, "start: .* in the other student, expected"),
    ):
        given = {key: value for key, value in {**CONTENT["student"], **student}.items() if value is not None}  # type: ignore[dict-item]
        content = {key: value for key, value in CONTENT.items() if key not in ("teachers", "distillation", "variants")}
        config = make_config(tmp_path, {**content, "name": "first", "student": given}, f"start={trained}")
        with pytest.raises(error, match=message):
            check(config)
    with pytest.raises(DistilrecError, match="missing"):
        check(config_with(tmp_path, tmp_path / "nowhere"))


def test_another_artifact_trains_again(trained: Path, tmp_path: Path) -> None:
    config = config_with(tmp_path, trained)
    nodes = build_graph(config)
    before = fingerprints(config, nodes)["distill/plain/seed-0"]
    assert "distill/mostpop/seed-0" not in fingerprints(config, nodes)  # of another kind
    (trained / "model.safetensors").write_bytes(b"changed")
    assert fingerprints(config, nodes)["distill/plain/seed-0"] != before
