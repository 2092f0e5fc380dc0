from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.artifacts.format import read_json, seal, write_json
from components.errors import ArtifactError, StageError, UnknownNameError
from components.recommender import Recommender
from pipelines.export import METRIC, Candidate, ExportConfig, choose, find_candidates, run
from pipelines.stages import EXTRA_MANIFEST_FILE
from serve.histories.base import BaseHistories, History
from tests.exhibits import picture
from tests.tiny_artifact import item_id, write_artifact


def candidate(variant: str, seed: int, metric: float, family: str = "student") -> Candidate:
    return Candidate(f"distill/{variant}/seed-{seed}", variant, seed, family, metric)


POOL = [
    candidate("plain", 0, 0.10),
    candidate("plain", 1, 0.30),  # the luckiest single run, of the worse variant
    candidate("prm-kd", 0, 0.24),
    candidate("prm-kd", 1, 0.22),
    candidate("mostpop", 0, 0.90, "baseline"),
]


@pytest.mark.parametrize(
    ("model", "seed", "winner"),
    [
        ("auto", None, ("prm-kd", 0)),
        ("auto", 1, ("prm-kd", 1)),
        ("plain", None, ("plain", 1)),
        ("plain", 0, ("plain", 0)),
        ("mostpop", None, ("mostpop", 0)),
    ],
)
def test_the_choice(model: str, seed: int | None, winner: tuple[str, int]) -> None:
    choice = choose(POOL, model, seed)
    assert (choice.winner.variant, choice.winner.seed) == winner
    assert f"seed {winner[1]}" in choice.reason


def test_the_reason_tells_the_mean_and_the_field() -> None:
    assert choose(POOL).reason.startswith(f"best mean {METRIC} (0.2300) of 2: plain, prm-kd")


def test_ties_do_not_depend_on_the_order() -> None:
    tied = [candidate("b", 1, 0.2), candidate("b", 0, 0.2), candidate("a", 3, 0.2)]
    assert choose(tied).winner == choose(tied[::-1]).winner == candidate("a", 3, 0.2)


def test_a_baseline_wins_only_where_there_is_nothing_else() -> None:
    assert choose([candidate("mostpop", 0, 0.1, "baseline")]).winner.variant == "mostpop"


@pytest.mark.parametrize(
    ("model", "seed", "message"),
    [
        ("prm_kd", None, r"known: auto, .*did you mean 'prm-kd'"),
        ("plain", 7, r"unknown seed of plain '7'; known: 0, 1"),
    ],
)
def test_unknown_choices_list_the_known(model: str, seed: int | None, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        choose(POOL, model, seed)


def test_nothing_to_choose_is_said() -> None:
    with pytest.raises(StageError, match="trained no student"):
        choose([])


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Finished nodes of a run: a prepared set, two students, a leaderboard."""
    prepared = tmp_path / "prepare"
    source = write_artifact(tmp_path / "source")
    (prepared / "sequences").mkdir(parents=True)
    items = pl.read_parquet(source / "items.parquet")
    items.with_columns(pl.lit(picture(1)).alias("image")).write_parquet(prepared / "items.parquet")
    users = {"user_id": ["ann"], "user": [1], "items": [[4, 2]], "train_end": [1]}
    pl.DataFrame(users).write_parquet(prepared / "sequences" / "part-0.parquet")
    seal(prepared, {"stage": "prepare"})
    found = {"prepare": prepared, "evaluate": tmp_path / "evaluate"}
    for variant, metric in (("plain", 0.1), ("prm-kd", 0.2)):
        node = f"distill/{variant}/seed-0"
        found[node] = write_artifact(tmp_path / node, seed=int(metric * 10))
        write_json(found[node] / "metrics.json", {METRIC: metric, "epochs": 3})
        seal(found[node], {"stage": "distill"})
    found["evaluate"].mkdir()
    rows = [{"name": "prm-kd", "metrics": {"ndcg@10": 0.19}}, {"name": "plain"}]
    write_json(found["evaluate"] / "leaderboard.json", {"rows": rows})
    seal(found["evaluate"], {"stage": "evaluate"})
    return found


def exported(inputs: dict[str, Path], folder: Path, **config: Any) -> Path:
    """Run the stage, and seal its folder as the executor does."""
    folder.mkdir()
    progress = SimpleNamespace(start=lambda *_: None, advance=lambda *_, **__: None, note=lambda _: None)
    settings = SimpleNamespace(export=ExportConfig(**config), name="shop")
    context = SimpleNamespace(
        config=settings, folder=folder, inputs=inputs, progress=progress, input=lambda node: inputs[node]
    )
    run(context)  # type: ignore[arg-type]
    extra = folder / EXTRA_MANIFEST_FILE
    fields = json.loads(extra.read_text())
    extra.unlink()
    seal(folder, fields)
    return folder


def test_the_export_serves_the_winner(inputs: dict[str, Path], tmp_path: Path) -> None:
    recommender = Recommender(exported(inputs, tmp_path / "export"))
    winner = Recommender(inputs["distill/prm-kd/seed-0"])
    histories = [[item_id(3), item_id(8)]]
    assert recommender.recommend(histories) == winner.recommend(histories)
    assert recommender.name.startswith("prm-kd@")
    assert len(BaseHistories.of_artifact(recommender.folder)) == 0


def test_the_export_says_where_it_comes_from(inputs: dict[str, Path], tmp_path: Path) -> None:
    folder = exported(inputs, tmp_path / "export")
    manifest = read_json(folder / "manifest.json")
    assert set(manifest["parents"]) == set(inputs)
    assert manifest["data_fingerprint"] == manifest["parents"]["prepare"]
    assert manifest["model"] == {"name": "prm-kd", "seed": 0, "kind": "sasrec", "family": "student", METRIC: 0.2}
    assert "best mean" in manifest["reason"]
    metrics = read_json(folder / "metrics.json")
    assert metrics["epochs"] == 3
    assert metrics["test"]["metrics"]["ndcg@10"] == 0.19


def test_pictures_go_along_as_thumbnails_unless_forbidden(inputs: dict[str, Path], tmp_path: Path) -> None:
    folder = exported(inputs, tmp_path / "export")
    manifest = read_json(folder / "manifest.json")
    assert "pictures.parquet" in manifest["files"]
    assert (manifest["pictures"]["pictures"], manifest["pictures"]["absent"]) == (60, {})
    assert manifest["opinions"] == {"none": "the run has no teachers"}
    without = exported(inputs, tmp_path / "without", pictures=False, opinions=False)
    assert not {"pictures", "opinions"} & set(read_json(without / "manifest.json"))
    assert not (without / "pictures.parquet").exists()


def test_the_teachers_items_go_along(inputs: dict[str, Path], tmp_path: Path) -> None:
    annotate = tmp_path / "annotate"
    (annotate / "teachers" / "reader").mkdir(parents=True)
    np.save(annotate / "teachers" / "reader" / "items.npy", np.eye(61, dtype=np.float16), allow_pickle=False)
    write_json(annotate / "teachers.json", {"teachers": [{"name": "reader"}]})
    seal(annotate, {"stage": "annotate"})
    folder = exported({**inputs, "annotate": annotate}, tmp_path / "export")
    manifest = read_json(folder / "manifest.json")
    assert (manifest["opinions"]["teachers"], manifest["opinions"]["items"]) == ({"reader": 61}, 60)
    assert "teacher_items.safetensors" in manifest["files"]


def test_original_pictures_and_histories_stay_behind_unless_asked(inputs: dict[str, Path], tmp_path: Path) -> None:
    folder = exported(inputs, tmp_path / "export")
    assert pl.read_parquet(folder / "items.parquet").columns == ["item", "item_id", "text", "count"]
    assert not (folder / "histories.parquet").exists()
    carried = BaseHistories.of_artifact(exported(inputs, tmp_path / "with-users", histories=True))
    own = BaseHistories.of_prepared(inputs["prepare"])
    assert carried.find("ann", 9) == own.find("ann", 9) == History([item_id(4), item_id(2)], 1)
    assert carried.fingerprint == own.fingerprint


def test_the_export_carries_attributes(inputs: dict[str, Path], tmp_path: Path) -> None:
    table = pl.read_parquet(inputs["prepare"] / "items.parquet")
    columns = {"brand": ["3M", None] * 30, "tags": ["a|b", "b"] * 30, "plot": ["long " * 40] * 60}
    table.with_columns(**{name: pl.Series(values) for name, values in columns.items()}).write_parquet(
        inputs["prepare"] / "items.parquet"
    )
    seal(inputs["prepare"], {"stage": "prepare"})
    folder = exported(inputs, tmp_path / "export")
    assert Recommender(folder).item("id-1") == ("Thing Nº 1", {"brand": ["3M"], "tags": ["a", "b"]})
    assert read_json(folder / "manifest.json")["attributes"] == {"brand": "", "tags": "|"}
    chosen = Recommender(exported(inputs, tmp_path / "chosen", attributes={"tags": ""}))
    assert chosen.item("id-1") == ("Thing Nº 1", {"tags": ["a|b"]})
    with pytest.raises(UnknownNameError, match=r"export.attributes 'tag'; known: brand, plot, tags"):
        exported(inputs, tmp_path / "wrong", attributes={"tag": ""})


def test_the_same_inputs_give_the_same_manifest(inputs: dict[str, Path], tmp_path: Path) -> None:
    one, two = exported(inputs, tmp_path / "one"), exported(inputs, tmp_path / "two")
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()


def test_a_named_model_is_exported(inputs: dict[str, Path], tmp_path: Path) -> None:
    assert Recommender(exported(inputs, tmp_path / "export", model="plain")).name.startswith("plain@")


def test_a_model_without_a_metric_is_named(inputs: dict[str, Path]) -> None:
    write_json(inputs["distill/plain/seed-0"] / "metrics.json", {})
    with pytest.raises(StageError, match=r"plain/seed-0/metrics.json: has no 'valid_ndcg@10'"):
        find_candidates(inputs)


def test_a_damaged_winner_is_not_exported(inputs: dict[str, Path], tmp_path: Path) -> None:
    path = inputs["distill/prm-kd/seed-0"] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match=r"model.safetensors: sha256"):
        exported(inputs, tmp_path / "export")
