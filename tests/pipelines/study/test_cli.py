"""`distilrec study` on the command line, as far as nothing runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.data.synthetic import write_world
from tests.pipelines.run_configs import write_config
from tests.pipelines.study.tiny_study import CONTENT
from tests.pipelines.test_cli import call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_world(tmp_path, num_users=40, num_items=60, domains=("gear",), pictures=False)
    return write_config(tmp_path, {**CONTENT, "data": str(tmp_path), "output": str(tmp_path / "runs")})


def test_a_dry_run_says_what_would_run_and_writes_nothing(file: Path) -> None:
    code, out, _ = call("study", "prm-kd", file, "--dry-run")
    assert code == 0
    assert "first, in the run itself: prepare, features, teach/text, teach/id, annotate" in out
    assert "13 trials: 0 done, 13 to run; 2 teachers to rank" in out
    assert not (file.parent / "runs").exists()


def test_a_dry_run_as_json(file: Path) -> None:
    code, out, _ = call("study", "prm-kd", file, "--dry-run", "--json", "seeds=[3]", "--only", "main")
    plan = json.loads(out)
    assert code == 0
    assert [(trial["name"], trial["student"], trial["done"]) for trial in plan["trials"]] == [
        ("plain, seed 3", "sasrec", False),
        ("prm-kd, seed 3", "sasrec", False),
        ("mostpop, seed 3", "mostpop", False),
        ("gru4rec, seed 3", "gru4rec", False),
    ]
    assert [teacher["name"] for teacher in plan["teachers"]] == ["text", "id"]


@pytest.mark.parametrize("words", [["--only", "main", "teachers"], ["--only", "teachers,main"]])
def test_tables_may_follow_only(file: Path, words: list[str]) -> None:
    _, out, _ = call("study", "prm-kd", file, "--dry-run", "--json", *words)
    tables = {table for trial in json.loads(out)["trials"] for table in trial["tables"]}
    assert tables == {"main", "teachers"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prm-kt", "FILE"], "unknown study 'prm-kt'; known: cprec, esapn, prm-kd; did you mean 'prm-kd'?"),
        (
            ["prm-kd", "FILE", "--only", "mian"],
            "unknown table of the study 'mian'; known: cost, main, students, sweeps",
        ),
        (["prm-kd", "FILE", "main"], "'main': expected key=value or key.sub=value"),
        (["prm-kd", "FILE", "study.students.fm.kind=fmm"], "study.students.fm.kind: unknown student 'fmm'"),
        (["prm-kd", "FILE", "study.sweeps.weight=[-2]"], "expected a value greater than or equal to 0, got -2"),
        (["prm-kd", "FILE", "distillation=null"], "the configuration of tiny lacks `distillation`; add teachers"),
        (["prm-kd", "FILE", "distillation=null", "teachers={}"], "lacks `teachers` and `distillation`"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_mistakes_of_the_user_exit_with_2_before_anything_runs(
    file: Path, words: list[str], message: str, dry: list[str]
) -> None:
    code, out, err = call("study", *[str(file) if word == "FILE" else word for word in words], *dry)
    assert code == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err
    assert not (file.parent / "runs").exists()
