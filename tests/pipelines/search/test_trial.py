"""One student of a search: its record after every epoch, a kill in the middle, and what fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.artifacts.models import load_model
from components.data.prepared import PreparedSet
from components.training.loop import World
from pipelines.footprints import catalog_of
from pipelines.search.candidates import Scale, setting_key, setting_of
from pipelines.search.trial import ARTIFACT, Record, SearchTrial, mark, read_record, read_records
from tests.kills import KilledError
from tests.pipelines.run_configs import make_config
from tests.pipelines.test_teach_and_distill import CONTENT, write_prepared

EPOCHS = 4


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    write_prepared(tmp_path / "prepare")
    return tmp_path / "prepare"


def make_trial(folder: Path, prepared: Path, **values: object) -> SearchTrial:
    content = {key: CONTENT[key] for key in ("name", "data", "input", "student")}
    config = make_config(folder, {**content, "training": {"epochs": EPOCHS, "batch_size": 16, "patience": None}})
    setting = setting_of(config, values)
    weight = Scale(catalog_of(PreparedSet(prepared))).weigh(setting)
    record = Record(1, setting_key(setting, 0, {}), values, weight)
    return SearchTrial(record, setting, folder / "trials", prepared, 0, mask_history=False)


def test_a_student_is_trained_recorded_and_measured(tmp_path: Path, prepared: Path) -> None:
    trial, told = make_trial(tmp_path, prepared), list[Record]()
    finished = trial.attempt(World(), told.append)
    assert finished == read_record(trial.folder)
    assert finished.state == "done"
    assert [len(record.epochs) for record in told] == list(range(1, EPOCHS))  # the last is told when it is saved
    assert finished.epochs == np.maximum.accumulate(finished.epochs).tolist()  # the best so far
    assert finished.metric == pytest.approx(max(finished.epochs))
    assert finished.latency_ms is not None
    assert load_model(trial.folder / ARTIFACT).num_items == catalog_of(PreparedSet(prepared)).num_items
    assert not (trial.folder / "work").exists()


def test_a_finished_student_answers_from_its_record(tmp_path: Path, prepared: Path) -> None:
    trial, told = make_trial(tmp_path, prepared), list[Record]()
    finished = trial.attempt(World(), lambda record: None)
    changed = (trial.folder / ARTIFACT / "model.safetensors").stat().st_mtime_ns
    again = replace(trial, record=replace(trial.record, number=9)).attempt(World(), told.append)
    assert again == finished  # its number, too
    assert [record.epochs for record in told] == [finished.epochs[: n + 1] for n in range(EPOCHS - 1)]
    assert (trial.folder / ARTIFACT / "model.safetensors").stat().st_mtime_ns == changed


def test_a_student_of_another_search_is_known_again(tmp_path: Path, prepared: Path) -> None:
    """The same student, although another space gave it: the key that is searched has the run's own value."""
    first = make_trial(tmp_path, prepared).attempt(World(), lambda record: None)
    config_dim = make_trial(tmp_path, prepared, **{"student.dim": 8})
    assert config_dim.record.key == first.key
    again = config_dim.attempt(World(), lambda record: None)
    assert again == replace(first, values={"student.dim": 8})
    assert read_record(config_dim.folder) == again


def test_what_a_stopped_student_left_is_removed(tmp_path: Path, prepared: Path) -> None:
    trial = make_trial(tmp_path, prepared)

    class KillingError(BaseException):
        """As kill -9 it is no Exception."""

    def kill(record: Record) -> None:
        raise KillingError

    with pytest.raises(KillingError):
        trial.attempt(World(), kill)
    record = read_record(trial.folder)
    assert record is not None
    assert (trial.folder / "work").is_dir()
    mark(trial.folder, record, "stopped")
    assert [path.name for path in trial.folder.iterdir()] == ["record.json"]
    stopped = read_record(trial.folder)
    assert stopped is not None
    assert stopped.over


def test_a_killed_student_goes_on_from_its_checkpoint(tmp_path: Path, prepared: Path) -> None:
    whole = make_trial(tmp_path / "whole", prepared) if (tmp_path / "whole").mkdir() is None else None
    assert whole is not None
    expected = whole.attempt(World(), lambda record: None)
    (tmp_path / "killed").mkdir()
    trial, told = make_trial(tmp_path / "killed", prepared), list[Record]()

    class KillingError(BaseException):
        """As kill -9 it is no Exception."""

    def kill(record: Record) -> None:
        if len(record.epochs) == 2:
            raise KillingError

    with pytest.raises(KillingError):
        trial.attempt(World(), kill)
    record = read_record(trial.folder)
    assert record is not None
    assert (record.state, len(record.epochs)) == ("running", 2)
    finished = trial.attempt(World(), told.append)
    assert finished.epochs == expected.epochs
    assert finished.metric == expected.metric
    assert len(told) == EPOCHS - 1  # two from the record, the rest trained


def test_a_failed_student_is_recorded_and_tried_again(tmp_path: Path, prepared: Path) -> None:
    trial = make_trial(tmp_path, prepared)

    def fail(record: Record) -> None:
        raise KilledError("no luck")

    failed = trial.attempt(World(), fail)
    assert failed.state == "failed"
    assert "no luck" in failed.reason
    assert read_records(tmp_path / "trials") == [failed]
    assert trial.attempt(World(), lambda record: None).state == "done"


def test_a_student_that_learns_nonsense_fails_with_its_reason(tmp_path: Path, prepared: Path) -> None:
    trial = make_trial(tmp_path, prepared, **{"training.learning_rate": 1e30})
    failed = trial.attempt(World(), lambda record: None)
    assert failed.state == "failed"
    assert "nan" in failed.reason.lower()
