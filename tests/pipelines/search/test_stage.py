"""A whole search through Ray Tune: budgets, records, the front, the winner, and a second start."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.format import read_json
from components.artifacts.models import load_model, read_model_config
from pipelines import annotate, distill, teach
from pipelines.search import stage
from pipelines.search.config import RESULT_FILE, WINNER
from pipelines.search.stage import LOGS_FOLDER, TRIALS_FOLDER
from pipelines.search.trial import read_records, write_record
from tests.pipelines.test_teach_and_distill import Run

pytestmark = pytest.mark.ray
BUDGET = 5_000
SEARCH = {
    "spaces": ["compression", "distillation"],
    "space": {"student.dim": [8, 16], "student.compression.share": [0.2, 0.4]},
    "trials": 6,
    "max_bytes": BUDGET,
    "grace_epochs": 1,
}


def make_run(folder: Path, **changes: Any) -> Run:
    run = Run(folder, f"search={json.dumps({**SEARCH, **changes})}", "training.epochs=4", "training.patience=null")
    for name in ("text", "id"):
        run.call(teach, f"teach/{name}", "prepare", "features")
    run.call(annotate, "annotate", "prepare", "teach/text", "teach/id")
    return run


@pytest.fixture(scope="module")
def run(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("search"))
    run.call(stage, "search", "prepare", "annotate")
    return run


def trials_of(run: Run) -> Path:
    (found,) = (run.config.folder / TRIALS_FOLDER).iterdir()
    return found


def test_what_was_found_is_written(run: Run) -> None:
    found = read_json(run.root / "search" / RESULT_FILE)
    records = read_records(trials_of(run))
    assert [record.number for record in records] == list(range(1, 7))
    assert all(record.weight.bytes <= BUDGET for record in records)
    assert {record.state for record in records} <= {"done", "stopped"}
    assert found["states"] == {state: [r.state for r in records].count(state) for state in found["states"]}
    assert found["refused"]["over budget"] > 0  # most of the space is too large
    done = [record for record in records if record.state == "done"]
    assert found["winner"]["number"] == max(done, key=lambda record: (record.best, -record.weight.bytes)).number
    assert f"within max_bytes {BUDGET:,}" in found["winner"]["reason"]
    assert found["winner"]["number"] in found["front"]
    assert (run.root / "search" / "front.svg").read_text().startswith("<svg")
    assert list((run.config.folder / LOGS_FOLDER).rglob("events.out.tfevents*"))


def test_the_winner_joins_the_students(run: Run) -> None:
    found = read_json(run.root / "search" / RESULT_FILE)["winner"]
    folder, _ = run.call(distill, "distill/searched/seed-0", "search", "annotate")
    taken = read_model_config(folder)
    assert {"kind": taken.kind, **taken.arguments} == found["student"]
    taken_model, found_model = (each / "model.safetensors" for each in (folder, run.root / "search" / WINNER))
    assert taken_model.read_bytes() == found_model.read_bytes()  # trained by the search, not once more
    load_model(folder)


def test_a_second_start_trains_no_finished_student_again(run: Run, tmp_path: Path) -> None:
    """As after kill -9: one student was under way, one had not begun."""
    second = Run.__new__(Run)
    second.root, second.config = tmp_path / "run", run.config
    shutil.copytree(run.root, second.root)
    shutil.rmtree(second.root / "search")
    shutil.rmtree(second.root / "work" / "search")
    second.config = run.config.model_copy(update={"output": str(tmp_path / "runs")})
    shutil.copytree(run.config.folder / TRIALS_FOLDER, second.config.folder / TRIALS_FOLDER)
    trials = trials_of(second)
    records = {record.number: record for record in read_records(trials)}
    shutil.rmtree(trials / records[6].key[:16])
    under_way = trials / records[5].key[:16]
    shutil.rmtree(under_way / "artifact", ignore_errors=True)
    write_record(under_way, replace(records[5], state="running", epochs=[], metric=None))
    before = {file: file.stat().st_mtime_ns for file in trials.glob("*/record.json") if file.parent != under_way}

    _, progress = second.call(stage, "search", "prepare", "annotate")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert any("4 of 5 students that began earlier are over and train no more" in line for line in progress.said)
    after = {record.number: record for record in read_records(trials)}
    assert set(after) == set(range(1, 7))
    assert all(record.over for record in after.values())
    assert {number: after[number] for number in range(1, 5)} == {number: records[number] for number in range(1, 5)}


def test_a_front_is_searched_without_a_scheduler(ray_session: None, tmp_path: Path) -> None:
    run = make_run(tmp_path, mode="front", trials=4, max_bytes=None)
    run.call(stage, "search", "prepare", "annotate")
    found = read_json(run.root / "search" / RESULT_FILE)
    assert found["states"] == {"done": 4}
    assert found["front"]
    assert all(student["latency_ms"] > 0 for student in found["students"])
