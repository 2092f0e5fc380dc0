from __future__ import annotations

import doctest
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from components.artifacts.models import load_model, save_model
from components.data.prepared import PreparedSet
from components.errors import ArtifactError, UnknownNameError, UserError
from components.evaluation.metrics import mean_metrics
from components.evaluation.ranking import target_positions
from components.model import Catalog
from components.students import STUDENTS
from pipelines import evaluate, report
from pipelines.config import RunConfig
from pipelines.evaluate import (
    EvaluateConfig,
    chosen_baseline,
    evaluate_model,
    find_models,
    measure_models,
    positions_file,
    run,
    split_name,
    summarize,
)
from pipelines.failures import causes
from pipelines.report import publish_report
from pipelines.stages import StageContext
from tests.components.evaluation.tiny import make_sequences
from tests.pipelines.recorder import Recorder

ITEMS, USERS = 40, 120
NODES = ("distill/markov/seed-0", "distill/mostpop/seed-0", "distill/plain/seed-0", "distill/plain/seed-1")


def write_prepared(folder: Path) -> PreparedSet:
    """Users walk along a ring of items, so that the last item tells the next one."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    lengths = generator.integers(4, 9, size=USERS)
    starts = np.minimum(generator.geometric(0.1, size=USERS), ITEMS)  # some items are more frequent
    walks = [
        [int(1 + (start + step - 1) % ITEMS) for step in range(n)] for start, n in zip(starts, lengths, strict=True)
    ]
    sequences = make_sequences(walks)
    training = np.concatenate([sequences.training_items(row) for row in range(USERS)])
    counts = np.bincount(training, minlength=ITEMS + 1)[1:]
    items = {"item": range(1, ITEMS + 1), "item_id": [f"i{n}" for n in range(ITEMS)], "count": counts}
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    (folder / "sequences").mkdir()
    pl.DataFrame(
        {
            "user": sequences.users,
            "user_id": [f"u{n}" for n in range(USERS)],
            "items": walks,
            "timestamps": pl.Series([None] * USERS, dtype=pl.List(pl.Int64)),
            "ratings": pl.Series([None] * USERS, dtype=pl.List(pl.Float32)),
            "train_end": sequences.train_end,
            "valid_end": sequences.valid_end,
        },
        schema_overrides={"items": pl.List(pl.Int32)},
    ).write_parquet(folder / "sequences" / "part-0.parquet")
    manifest = {"schema_version": 1, "config": {"prepare": {"split": "leave_one_out"}}, "rows_read": 777, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return PreparedSet(folder)


def write_model(folder: Path, kind: str, seed: int, prepared: PreparedSet) -> None:
    folder.mkdir(parents=True)
    arguments: dict[str, Any] = {"dim": 8, "num_layers": 1, "max_length": 4} if kind == "sasrec" else {}
    catalog = Catalog(prepared.num_items, USERS, prepared.counts, prepared.sequences)
    torch.manual_seed(seed)
    model = STUDENTS[kind].make(catalog, arguments).eval()
    family = "student" if kind == "sasrec" else "baseline"
    save_model(model, folder, kind=kind, family=family, arguments=arguments, catalog=catalog)  # type: ignore[arg-type]
    if kind == "sasrec":
        epochs = [{"epoch": epoch, "loss": 4.0 / epoch, "valid_ndcg@10": 0.1 * epoch} for epoch in (1, 2)]
        (folder / "history.json").write_text(json.dumps({"epochs": epochs}))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    prepared = write_prepared(root / "prepare")
    for node in NODES:
        kind = {"plain": "sasrec"}.get(node.split("/")[1], node.split("/")[1])
        write_model(root / node, kind, int(node[-1]), prepared)
    return {"prepare": root / "prepare", **{node: root / node for node in NODES}}


def make_context(root: Path, inputs: dict[str, Path], **settings: Any) -> StageContext:
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "output": str(root / "runs"),
            "data": "s3://key:secret@bucket",
            "input": {"interactions": "log.csv"},
            "evaluate": {"requests": 3, "bootstrap": 100, **settings},
        }
    )
    folder = config.folder / ".partial-evaluate"
    folder.mkdir(parents=True)
    return StageContext(config, "evaluate", "", folder, root / "work", inputs, Recorder())


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(evaluate).failed == doctest.testmod(report).failed == 0


def test_one_model_without_ray(inputs: dict[str, Path], tmp_path: Path) -> None:
    node, prepared = "distill/markov/seed-0", PreparedSet(inputs["prepare"])
    output = positions_file(tmp_path, node)
    found = evaluate_model(inputs[node], inputs["prepare"], output, EvaluateConfig())
    table = pl.read_parquet(output)
    cases = prepared.sequences.cases("test")
    expected = target_positions(load_model(inputs[node]), cases)
    assert table["user"].to_list() == cases.users.tolist()
    assert table["position"].to_list() == expected.tolist()
    assert found["kind"] == "baseline"
    assert found["shown"] == pytest.approx(mean_metrics(expected)["ndcg@10"])
    assert found["bytes"] == sum((inputs[node] / name).stat().st_size for name in ("model.safetensors", "config.json"))
    assert 0 < found["beyond_accuracy"]["coverage"] <= 1


def test_the_part_and_the_mask_are_obeyed(inputs: dict[str, Path], tmp_path: Path) -> None:
    node, prepared = "distill/plain/seed-0", PreparedSet(inputs["prepare"])
    config = EvaluateConfig(part="valid", mask_history=True, ties="for")
    evaluate_model(inputs[node], inputs["prepare"], tmp_path / "p.parquet", config)
    cases = prepared.sequences.cases("valid")
    expected = target_positions(load_model(inputs[node]), cases, mask_history=True, ties="for")
    assert pl.read_parquet(tmp_path / "p.parquet")["position"].to_list() == expected.tolist()


@pytest.mark.ray
def test_the_whole_stage(ray_session: None, inputs: dict[str, Path], tmp_path: Path) -> None:
    context = make_context(tmp_path, inputs)
    timing = context.config.folder / "logs" / "timing"
    timing.mkdir(parents=True)
    for seed, seconds in ((0, 2.0), (1, 4.0)):
        content = {"seconds": 9.0, "train_seconds_per_epoch": seconds}
        (timing / f"distill--plain--seed-{seed}.json").write_text(json.dumps(content))
    run(context)
    assert sum(context.progress.done) == len(NODES)  # type: ignore[attr-defined]
    assert {str(path) for path in digests(context.folder)} == {
        "leaderboard.json",
        "report.json",
        *(f"positions/{node}.parquet" for node in NODES),
    }
    stage = json.loads((context.folder / "leaderboard.json").read_text())
    published = json.loads((context.config.folder / "leaderboard.json").read_text())
    rows = {row["name"]: row for row in published["rows"]}
    assert next(iter(rows)) == "markov"
    assert rows["markov"]["metrics"]["recall@10"] > 0.9  # the planted ring
    assert rows["markov"]["metrics"]["recall@10"] > rows["mostpop"]["metrics"]["recall@10"]
    assert rows["markov"]["p_value"]["ndcg@10"] < 0.001
    assert rows["plain"]["seeds"] == [0, 1]
    assert (rows["plain"]["kind"], rows["mostpop"]["kind"]) == ("student", "baseline")
    assert rows["plain"]["train_seconds_per_epoch"] == 3.0
    assert all(0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"] for row in rows.values())
    assert all(row["latency_ms"] is None for row in stage["rows"])
    assert (published["dataset"], published["split"], published["users"]) == ("tiny", "leave_one_out", USERS)
    page = (context.config.folder / "report.html").read_text()
    assert page.count("<svg") >= 4
    assert "secret" not in page
    assert "777" in page


@pytest.mark.ray
def test_the_folder_is_the_same_in_every_run(ray_session: None, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Times differ between runs; the manifest may not."""
    first, second = (make_context(tmp_path / name, inputs) for name in ("a", "b"))
    run(first)
    run(second)
    assert first.timing != second.timing
    assert digests(first.folder) == digests(second.folder)


@pytest.mark.ray
def test_a_damaged_model_is_named(ray_session: None, inputs: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((inputs["distill/markov/seed-0"] / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"x")
    context = make_context(tmp_path, {"prepare": inputs["prepare"], "distill/broken/seed-0": broken})
    with pytest.raises(Exception, match="truncated or damaged") as caught:
        run(context)
    assert any(isinstance(cause, ArtifactError) for cause in causes(caught.value))


def test_the_report_is_written_again_from_the_logs(inputs: dict[str, Path], tmp_path: Path) -> None:
    context = make_context(tmp_path, inputs)
    models, _ = find_models(inputs)
    final = context.config.folder / "evaluate"
    config = context.config.evaluate
    measured = {
        node: evaluate_model(models[node], inputs["prepare"], positions_file(final, node), config) for node in models
    }
    summarize(inputs, measured, final, config, "plain", 0)
    assert publish_report(context.config) == context.config.folder / "report.html"
    untimed = json.loads((context.config.folder / "leaderboard.json").read_text())
    assert all(row["latency_ms"] is None for row in untimed["rows"])
    logs = context.config.folder / "logs" / "timing"
    logs.mkdir(parents=True)
    times = measure_models(models, inputs["prepare"], config)
    (logs / "evaluate.json").write_text(json.dumps({"seconds": 1.0, **times}))
    publish_report(context.config)
    timed = json.loads((context.config.folder / "leaderboard.json").read_text())
    assert all(row["latency_ms"]["p50"] > 0 for row in timed["rows"])


def test_a_missing_stage_is_told(inputs: dict[str, Path], tmp_path: Path) -> None:
    context = make_context(tmp_path, inputs)
    with pytest.raises(ArtifactError, match=r"evaluate/leaderboard\.json: missing"):
        publish_report(context.config)


def test_teachers_that_are_arrays_are_left_out(inputs: dict[str, Path], tmp_path: Path) -> None:
    models, left_out = find_models({**inputs, "teach/llm": tmp_path, "pretrain/x": inputs[NODES[0]]})
    assert list(models) == sorted(NODES)
    assert left_out == ["teach/llm"]
    with pytest.raises(UserError, match="nothing to evaluate"):
        find_models({"prepare": inputs["prepare"]})


def test_the_baseline() -> None:
    assert chosen_baseline(EvaluateConfig(), ["plain", "kd"]) == "plain"
    assert chosen_baseline(EvaluateConfig(), ["kd"]) is None
    assert chosen_baseline(EvaluateConfig(baseline=None), ["plain"]) is None
    with pytest.raises(UnknownNameError, match=r"'plane'; known: kd, plain; did you mean 'plain'"):
        chosen_baseline(EvaluateConfig(baseline="plane"), ["plain", "kd"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cutoffs": [10, 5]}, "increasing numbers"),
        ({"cutoffs": [0, 5]}, "increasing numbers"),
        ({"cutoffs": []}, "at least 1 item"),
        ({"ties": "worst"}, "'against', 'average' or 'for'"),
        ({"baselin": "x"}, "baselin"),
        ({"slices": {"cold": 3}}, "slices.cold"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"config": {"prepare": {"split": "global_time"}}}, "global_time"),
        ({"split": {"kind": "leave_one_out"}}, "leave_one_out"),
        ({}, ""),
    ],
)
def test_split_name(manifest: dict[str, Any], expected: str) -> None:
    assert split_name(manifest) == expected
