"""Which trials a study has, which of them tables share, and what changes their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ConfigError, UnknownNameError
from pipelines.config import RunConfig
from pipelines.study.kinds import CPREC, PRM_KD
from pipelines.study.plan import (
    TABLES,
    Entry,
    Trial,
    study_entries,
    study_seeds,
    study_trials,
    unique_trials,
)
from tests.pipelines.study.tiny_study import CONTENT, tiny_config

DIGESTS = {"prepare": "p", "annotate": "a"}
Found = dict[tuple[str, str], list[Trial]]


def trials(config: RunConfig, digests: dict[str, str] = DIGESTS) -> Found:
    return study_trials(config, study_entries(config), digests)


def keys(found: Found) -> dict[tuple[str, str], list[str]]:
    return {row: [trial.key for trial in each] for row, each in found.items()}


def names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_every_table_has_its_rows(tmp_path: Path) -> None:
    entries = study_entries(tiny_config(tmp_path))
    assert names(entries["main"]) == ["plain", "prm-kd", "mostpop", "gru4rec"]
    assert names(entries["cost"]) == ["plain", "prm-kd", "fm", "fm + prm-kd"]
    assert names(entries["students"]) == ["sasrec", "sasrec + prm-kd", "fm", "fm + prm-kd"]
    assert names(entries["teachers"]) == [
        "plain",
        "all teachers",
        "only text",
        "only id",
        "in-batch items",
        "all items",
        "consistency weights",
        "average weights",
    ]
    sweeps = ["plain", "temperature 0.1", "temperature 1", "dim 4", "dim 4 + prm-kd"]
    assert names(entries["sweeps"]) == sweeps
    by_name = {entry.name: entry for entry in entries["teachers"]}
    assert by_name["all teachers"].against == "plain"
    assert by_name["only id"].against == "all teachers"
    changed = by_name["only id"].setting.distillation
    assert changed is not None
    assert (changed.teachers, changed.temperature) == (["id"], 0.1)


def test_a_trial_of_several_tables_exists_once(tmp_path: Path) -> None:
    found = trials(tiny_config(tmp_path, "seeds=[0, 1]"))
    distilled = found["main", "prm-kd"]
    assert [trial.seed for trial in distilled] == [0, 1]
    shared = [
        ("students", "sasrec + prm-kd"),
        ("teachers", "all teachers"),
        ("teachers", "in-batch items"),
        ("teachers", "consistency weights"),
        ("sweeps", "temperature 0.1"),
    ]
    for row in shared:
        assert all(one is other for one, other in zip(found[row], distilled, strict=True)), row
    assert found["cost", "prm-kd"] == distilled[:1]
    assert found["main", "mostpop"][0].setting.counts
    assert [trial.seed for trial in found["main", "mostpop"]] == [0]
    # plain, prm-kd, gru4rec, fm, fm taught, 2 teachers alone, all items, average, temperature 1, dim 4 and taught
    assert len(unique_trials(found)) == 2 * 12 + 1


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("student.dropout=0.3", {"plain", "prm-kd", "all teachers", "dim 4"}),  # gru4rec has its own
        ("student.dim=16", {"plain", "prm-kd", "all teachers", "gru4rec", "fm", "fm + prm-kd"}),
        ("distillation.weight=3", {"prm-kd", "all teachers", "fm + prm-kd", "temperature 1"}),
        ("training.epochs=7", {"plain", "prm-kd", "all teachers", "gru4rec", "fm", "fm + prm-kd", "dim 4"}),
        ("study.students.fm.dropout_of=1", None),
        ("study.students.fm.training.epochs=7", {"fm", "fm + prm-kd"}),
        ("study.students.fm.distillation.weight=3", {"fm + prm-kd"}),
        ("evaluate.mask_history=true", {"plain", "prm-kd", "mostpop", "gru4rec", "fm", "dim 4"}),
        ("training.checkpoint_seconds=9", set()),
        ("cluster.max_parallel_students=1", set()),
        ("evaluate.requests=3", set()),
        ("study.paper=toys", set()),
    ],
)
def test_a_key_changes_with_what_decides_the_result_and_only_then(
    tmp_path: Path, override: str, changed: set[str] | None
) -> None:
    before = keys(trials(tiny_config(tmp_path)))
    if changed is None:
        with pytest.raises(ConfigError, match=r"study\.students\.fm\.dropout_of: unknown key; valid keys: dim, "):
            tiny_config(tmp_path, override)
        return
    after = keys(trials(tiny_config(tmp_path, override)))
    differing = {name for (table, name), own in before.items() if after[table, name] != own}
    assert changed <= differing
    if not changed:
        assert differing == set()
    if "plain" not in changed:
        assert "plain" not in differing
    if "fm" not in changed:
        assert "fm" not in differing


def test_plain_trials_depend_on_the_prepared_set_and_distilled_ones_on_the_annotated(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    before = keys(trials(config))
    annotated = keys(trials(config, {**DIGESTS, "annotate": "other"}))
    prepared = keys(trials(config, {**DIGESTS, "prepare": "other"}))
    assert annotated["main", "plain"] == before["main", "plain"]
    assert annotated["main", "prm-kd"] != before["main", "prm-kd"]
    assert prepared["main", "plain"] != before["main", "plain"]
    assert prepared["main", "mostpop"] != before["main", "mostpop"]


def test_a_student_takes_width_and_length_from_the_runs_own(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "student.dim=12", "study.students.fm.max_length=3")
    entries = {entry.name: entry.setting for entry in study_entries(config)["students"]}
    assert entries["fm"].arguments["dim"] == 12
    assert entries["fm"].arguments["max_length"] == 3
    assert entries["sasrec"].arguments["inner_dim"] == 8  # of the same kind: everything
    main = {entry.name: entry.setting for entry in study_entries(config)["main"]}
    assert (main["gru4rec"].arguments["dim"], main["gru4rec"].arguments["max_length"]) == (12, 6)


def test_a_baseline_may_name_a_student_of_the_study(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        "study.students.wide.kind=bert4rec",
        "study.students.wide.dim=16",
        "study.students.wide.distilled=false",
        "study.baselines=[wide]",
    )
    entries = study_entries(config)
    assert {entry.name: entry.setting.arguments["dim"] for entry in entries["main"]}["wide"] == 16
    assert "wide" not in names(entries["students"])


def test_one_teacher_has_no_row_alone(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "distillation.teachers=[id]")
    assert not [name for name in names(study_entries(config)["teachers"]) if name.startswith("only")]


@pytest.mark.parametrize(("removed", "lacks"), [("distillation", "`distillation`"), ("teachers", "`teachers`")])
def test_a_study_without_teachers_or_distillation_is_refused(tmp_path: Path, removed: str, lacks: str) -> None:
    sections = {"teachers": {}, "distillation": None} if removed == "teachers" else {"distillation": None}
    config = tiny_config(tmp_path, **sections)
    with pytest.raises(ConfigError, match=rf"the configuration of tiny lacks {lacks}"):
        study_entries(config)


def test_tables_are_chosen_by_name() -> None:
    assert PRM_KD.chosen([]) == TABLES
    assert PRM_KD.chosen(["sweeps", "main"]) == ("main", "sweeps")
    assert CPREC.chosen(["sharing", "main"]) == ("main", "sharing")
    with pytest.raises(UnknownNameError, match=r"unknown table of the study 'teacher'; .* did you mean 'teachers'"):
        PRM_KD.chosen(["teacher"])


def test_the_defaults_make_a_study_of_every_configuration(tmp_path: Path) -> None:
    sections = {name: value for name, value in CONTENT.items() if name != "study"}
    config = tiny_config(tmp_path / "a", study={}, **{k: v for k, v in sections.items() if k == "student"})
    entries = study_entries(config)
    assert names(entries["students"])[::2] == ["sasrec", "gru4rec", "nextitnet", "fm", "deepfm", "lightgcn"]
    assert names(entries["main"])[2:] == ["gru4rec", "bert4rec", "recguru", "mostpop", "markov"]
    found = trials(config)
    assert found["main", "gru4rec"] == found["students", "gru4rec"]


def test_sweeps_may_have_seeds_of_their_own(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "study.sweeps.seeds=[7]")
    found = trials(config)
    assert [trial.seed for trial in found["sweeps", "temperature 1"]] == [7]
    assert [trial.seed for trial in found["main", "plain"]] == study_seeds(config)
