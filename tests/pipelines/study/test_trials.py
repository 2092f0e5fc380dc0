"""One trial from its key to its sealed folder, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts.models import load_model
from components.data.prepared import PreparedSet
from components.evaluation.metrics import mean_metrics
from components.evaluation.ranking import target_positions
from components.training.loop import World
from components.training.observer import Place
from pipelines.cache import PARTIAL_PREFIX
from pipelines.config import RunConfig
from pipelines.study.plan import Trial, study_entries, study_trials
from pipelines.study.trials import (
    LEFT_OUT,
    RANKED_TOO,
    RANKS_FILE,
    TeacherWork,
    TrialWork,
    is_done,
    read_ranks,
    trial_folder,
    trial_timing_file,
)
from tests.pipelines.study.tiny_study import tiny_config
from tests.pipelines.test_teach_and_distill import write_prepared


class Watching:
    """Notes how training begins; raises in the step after `steps`, like a process that is killed there."""

    def __init__(self, steps: int | None = None) -> None:
        self.begun: list[int] = []
        self.done, self.steps = 0, steps

    def begin(self, place: Place) -> None:
        self.begun.append(place.epoch)

    def step(self, epoch: int, targets: int) -> None:
        self.done += 1
        if self.steps is not None and self.done > self.steps:
            raise KeyboardInterrupt

    def epoch(self, row: dict[str, float], checkpoint: Path) -> None: ...


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = tiny_config(tmp_path, "training.epochs=3", "training.batch_size=16")
    write_prepared(config.folder / "prepare")
    return config


def find(config: RunConfig, name: str) -> Trial:
    entries = study_entries(config, ["main"])
    return study_trials(config, entries, {"prepare": "p", "annotate": "a"})["main", name][0]


def work(config: RunConfig, name: str = "plain") -> TrialWork:
    return TrialWork(find(config, name), config.folder.absolute(), mask_history=False, ties="against")


def test_a_trial_leaves_an_artifact_and_the_ranks_of_both_protocols(config: RunConfig) -> None:
    trial = find(config, "plain")
    assert not is_done(config.folder, trial)
    assert work(config).attempt(World(), Watching()) == ""
    assert is_done(config.folder, trial)
    folder = trial_folder(config.folder, trial)
    cases = PreparedSet(config.folder / "prepare").sequences.cases("test")
    ranks, model = read_ranks(folder / RANKS_FILE), load_model(folder)
    for protocol, mask in ((LEFT_OUT, True), (RANKED_TOO, False)):
        np.testing.assert_array_equal(ranks[protocol], target_positions(model, cases, mask_history=mask))
    assert (ranks[LEFT_OUT] <= ranks[RANKED_TOO]).all()
    assert (ranks[LEFT_OUT] < ranks[RANKED_TOO]).any()
    metrics = json.loads((folder / "test_metrics.json").read_text())
    assert metrics[RANKED_TOO] == pytest.approx(mean_metrics(ranks[RANKED_TOO]))
    assert json.loads(trial_timing_file(config.folder, trial).read_text())["targets_per_second"] > 0
    assert not list((config.folder / ".work").iterdir())


def test_a_trial_that_only_counts(config: RunConfig) -> None:
    assert work(config, "mostpop").attempt(World(), Watching()) == ""
    assert is_done(config.folder, find(config, "mostpop"))


def test_a_killed_trial_goes_on_from_its_checkpoint_to_the_same_ranks(config: RunConfig, tmp_path: Path) -> None:
    trial = find(config, "plain")
    with pytest.raises(KeyboardInterrupt):
        work(config).attempt(World(), Watching(steps=6))  # four steps per epoch
    assert not is_done(config.folder, trial)
    again = Watching()
    assert work(config).attempt(World(), again) == ""
    assert again.begun == [1]
    assert not list(trial_folder(config.folder, trial).parent.glob(f"{PARTIAL_PREFIX}*"))

    whole = tiny_config(tmp_path / "whole", "training.epochs=3", "training.batch_size=16")
    write_prepared(whole.folder / "prepare")
    assert work(whole).attempt(World(), Watching()) == ""
    found = [read_ranks(trial_folder(each.folder, trial) / RANKS_FILE)[LEFT_OUT] for each in (config, whole)]
    np.testing.assert_array_equal(*found)


def test_a_failed_trial_says_why_and_leaves_a_log(config: RunConfig) -> None:
    trial = find(config, "prm-kd")  # the annotated set is not there
    reason = work(config, "prm-kd").attempt(World(), Watching())
    assert "annotate" in reason
    assert not is_done(config.folder, trial)
    log = config.folder / "logs" / f"study--{trial.key[:16]}.log"
    assert "Traceback" in log.read_text()


def test_a_damaged_trial_is_not_done_and_is_made_again(config: RunConfig) -> None:
    trial = find(config, "mostpop")
    work(config, "mostpop").attempt(World(), Watching())
    (trial_folder(config.folder, trial) / RANKS_FILE).write_bytes(b"")
    assert not is_done(config.folder, trial)
    assert work(config, "mostpop").attempt(World(), Watching()) == ""
    assert is_done(config.folder, trial)


def test_a_folder_under_another_key_is_not_done(config: RunConfig) -> None:
    work(config, "mostpop").attempt(World(), Watching())
    other = trial_folder(config.folder, find(config, "plain"))
    trial_folder(config.folder, find(config, "mostpop")).rename(other)
    assert not is_done(config.folder, find(config, "plain"))


def test_a_teacher_that_cannot_be_read_is_a_reason(config: RunConfig) -> None:
    file = config.folder / "study" / "teachers" / "text.parquet"
    reason = TeacherWork("text", file, config.folder.absolute(), "against").attempt(World(), Watching())
    assert "teach/text" in reason
    assert not file.exists()


def test_work_travels_to_a_worker(config: RunConfig) -> None:
    import pickle  # as Ray does

    before: Any = work(config)
    after = pickle.loads(pickle.dumps(before))  # noqa: S301
    assert after.trial.key == before.trial.key
