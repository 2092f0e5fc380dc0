"""A whole study of tiny students through Ray Tune: sharing, a failed trial, a second start, and the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import pipelines.study.command
from components.errors import StageError
from components.reports.study.markdown import marks
from components.schema import MANIFEST_FILE
from pipelines import annotate, teach
from pipelines.config import RunConfig
from pipelines.study.command import Outcome, make_study, missing_works, run_study
from pipelines.study.plan import TABLES, unique_trials
from pipelines.study.results import Document, study_documents
from pipelines.study.trials import LEFT_OUT, RANKED_TOO
from pipelines.study.write import write_results
from tests.pipelines.study.tiny_study import tiny_config
from tests.pipelines.test_teach_and_distill import Run

TABLES_OF_QUALITY = ("main", "teachers", "students", "sweeps")


@pytest.fixture(scope="module")
def config(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    """A run that is annotated; the study finds nothing to do before its trials."""
    folder = tmp_path_factory.mktemp("study")
    config = tiny_config(folder)
    config.folder.parent.mkdir(parents=True)
    run = Run(config.folder)
    for name in config.teachers:
        run.call(teach, f"teach/{name}", "prepare", "features")
    run.call(annotate, "annotate", "prepare", "teach/text", "teach/id")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.study.command, "execute_run", lambda config, stage: None)
        yield config


@dataclass(frozen=True)
class Starts:
    """Two starts of a study; what the first one finished, with times of change, and what it would have shown."""

    first: Outcome
    second: Outcome
    finished: dict[str, int]
    shown: list[Document]


@pytest.fixture(scope="module")
def starts(config: RunConfig) -> Starts:
    """A start in which one trial fails, and the next one."""
    study = make_study(config, ("main", "teachers"))
    blocked = study.trials["teachers", "average weights"][0]
    file = config.folder / ".work" / blocked.node.name.replace("/", "--")
    file.parent.mkdir(exist_ok=True)
    file.touch()  # where the trial wants a folder
    first = run_study(config, ["main", "teachers"])
    finished, shown = times(config), study_documents(first)
    file.unlink()
    return Starts(first, run_study(config, TABLES_OF_QUALITY), finished, shown)


def times(config: RunConfig) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in config.folder.glob(f"study/trials/*/{MANIFEST_FILE}")}


def test_a_failed_trial_is_told_and_stops_no_other(starts: Starts) -> None:
    first, finished = starts.first, starts.finished
    (failed,) = first.failures.items()
    assert failed[0] == first.study.trials["teachers", "average weights"][0].key
    assert "cannot write" in failed[1]
    trials = unique_trials(first.study.trials)
    assert len(finished) == len(trials) - 1
    assert sorted(first.ran) == sorted(["teacher text", "teacher id", *(trial.key for trial in trials)])
    rows = {row["name"]: row for row in starts.shown[1]["sections"][RANKED_TOO]}
    assert rows["average weights"]["metrics"] is None
    assert "cannot write" in rows["average weights"]["missing"]["0"]
    assert rows["only id"]["metrics"]["ndcg@10"] > 0


def test_the_next_start_runs_what_failed_and_what_is_new_and_nothing_else(starts: Starts, config: RunConfig) -> None:
    first, second, finished = starts.first, starts.second, starts.finished
    assert second.failures == {}
    before = {trial.key for trial in unique_trials(first.study.trials)}
    new = [trial.key for trial in unique_trials(second.study.trials) if trial.key not in before]
    assert sorted(second.ran) == sorted([*first.failures, *new])
    assert finished.items() <= times(config).items()


def test_a_third_start_opens_no_session(starts: Starts, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(config: RunConfig) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr(pipelines.study.command, "_session", never)
    assert run_study(config, TABLES_OF_QUALITY).ran == []


def test_tables_hold_teachers_and_both_protocols(starts: Starts) -> None:
    main, teachers, students, sweeps = study_documents(starts.second)
    assert list(main["sections"]) == [RANKED_TOO, LEFT_OUT]  # the run's own comes first
    for rows in main["sections"].values():
        kinds = {row["name"]: row["kind"] for row in rows}
        assert kinds == {
            "plain": "student",
            "prm-kd": "student",
            "mostpop": "baseline",
            "gru4rec": "baseline",
            "text": "teacher",
            "id": "teacher",
        }
        assert all(row["metrics"]["recall@20"] > 0 for row in rows)
    assert list(teachers["sections"]) == list(students["sections"]) == [RANKED_TOO]
    assert list(sweeps["sections"]) == ["temperature", "dim"]
    values = [row["value"] for row in sweeps["sections"]["temperature"]]
    assert values == [None, 0.1, 1.0]


def test_a_teacher_without_a_model_says_why(starts: Starts, config: RunConfig) -> None:
    left_out = config.teachers["text"]
    external = left_out.model_copy(update={"kind": "external"})
    known = {**config.teachers, "left-out": left_out, "arrays": external}
    study = replace(starts.second.study, config=config.model_copy(update={"teachers": known}))
    main = study_documents(replace(starts.second, study=study))[0]
    rows = {row["name"]: row for row in main["sections"][LEFT_OUT]}
    assert rows["left-out"]["missing"] == {"0": "not trained, as distillation.teachers does not name it"}
    assert rows["arrays"]["missing"] == {"0": "two arrays, no model that could rank new histories"}
    assert rows["text"]["metrics"]


def test_files_are_written_and_a_part_of_a_document_replaced(starts: Starts, config: RunConfig, tmp_path: Path) -> None:
    other = tmp_path / "docs" / "reproduction.md"
    other.parent.mkdir()
    other.write_text("# Introduction\n")
    for _ in range(2):
        written = write_results(starts.second, study_documents(starts.second), "distilrec study prm-kd x.yaml", other)
    names = {file.name for file in written}
    assert {f"{table}.{kind}" for table in TABLES_OF_QUALITY for kind in ("json", "svg")} < names
    text = other.read_text()
    assert text.startswith("# Introduction\n")
    assert all(text.count(mark) == 1 for mark in marks("tiny"))
    assert "### Main results (Table 3)" in text
    own = (config.folder / "study" / "reproduction.md").read_text()
    assert "](main.svg)" in own
    document: dict[str, Any] = json.loads((config.folder / "study" / "main.json").read_text())
    assert document["users"] == 60


def test_cost_measures_every_model_once_per_round(
    starts: Starts, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def measure(artifact: Path, prepared: Path, users: int) -> dict[str, float] | str:
        asked.append(artifact)
        if artifact.name == "id":
            return "MemoryError"
        return {"users_per_second": 100.0, "peak_mb": 300.0, "model_mb": 5.0, "parameters": 7}

    monkeypatch.setattr("pipelines.study.cost.measure_once", measure)
    outcome = run_study(config, ["cost"])
    assert outcome.ran == []
    assert outcome.failures == {"cost of teacher id": "MemoryError"}
    assert len(asked) == len({str(artifact) for artifact in asked}) == 6  # plain, prm-kd, fm, fm taught, 2 teachers
    rows = {row["name"]: row for row in study_documents(outcome)[0]["sections"][""]}
    assert rows["prm-kd"]["ratio"]["inference"] == 1.0
    assert rows["prm-kd"]["ratio"]["training"] > 0
    assert rows["id"]["users_per_second"] is None
    assert rows["id"]["missing"] == "MemoryError"
    assert rows["text"]["parameters"] == 7


def test_a_study_needs_its_inputs(config: RunConfig, tmp_path: Path) -> None:
    empty = tiny_config(tmp_path)
    with pytest.raises(StageError, match="prepare: not finished; run the same command again"):
        make_study(empty, TABLES)


def test_a_teacher_that_changes_is_ranked_again(starts: Starts, config: RunConfig) -> None:
    study = make_study(config, ("main",))
    assert missing_works(study) == {}
    changed = replace(study, teachers={**study.teachers, "id": study.teachers["text"]})
    assert list(missing_works(changed)) == ["teacher id"]
