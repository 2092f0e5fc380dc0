"""`distilrec study esapn`: methods, tasks and seeds as trials that are run once, then tables, pictures and Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipelines.stream.configs import CONTENT, stream_config
from tests.pipelines.stream.logs import rating_lines
from tests.pipelines.test_cli import call

STUDY = {"methods": ["fixed", "esapn"], "modes": {"control": {"bn_mode": "selected"}}}


def study_config(folder: Path) -> Path:
    return stream_config(folder, rating_lines(400), seeds=[0, 1], stream={**CONTENT["stream"], "study": STUDY})


def test_a_dry_run_lists_the_trials(tmp_path: Path) -> None:
    code, out, _ = call("study", "esapn", study_config(tmp_path), "--dry-run", "--json")
    names = [trial["name"] for trial in json.loads(out)["trials"]]
    assert code == 0
    assert len(names) == len(set(names)) == 12
    assert names[:3] == ["fixed, binary, seed 0", "esapn, binary, seed 0", "control, binary, seed 0"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "main"], "the study esapn has one table"),
        (["prepare.task=ranking"], "stream: needs a log prepared as a stream"),
    ],
)
def test_mistakes_of_the_user_exit_with_2(tmp_path: Path, words: list[str], message: str) -> None:
    code, _, err = call("study", "esapn", study_config(tmp_path), *words)
    assert code == 2
    assert message in err.replace("\n", " ")


@pytest.mark.ray
def test_trials_run_once_and_become_tables_pictures_and_text(tmp_path: Path, ray_session: None) -> None:
    file, other = study_config(tmp_path), tmp_path / "all.md"
    code, out, err = call("study", "esapn", file, "--json", "--write", other)
    assert code == 0, err
    told = json.loads(out)
    assert (told["ran"], told["failed"]) == (12, {})
    rows = {(row["name"], row["task"]): row for row in told["document"]["rows"]}
    assert set(rows) == {(name, task) for name in ("fixed", "esapn", "control") for task in ("binary", "five-class")}
    assert all(row["seeds"] == [0, 1] for row in rows.values())
    folder = tmp_path / "runs" / "tiny" / "study"
    assert (folder / "esapn-sizes-five-class.svg").is_file()
    text = other.read_text()
    assert text.count("<!-- study esapn-tiny: begin") == 1
    assert "best first" not in text  # an order needs all four methods
    assert "against FIXED: accuracy" in text
    assert not (folder / ".tune").exists()
    code, out, _ = call("study", "esapn", file, "--json", "--write", other)
    assert json.loads(out)["ran"] == 0
    assert other.read_text() == text
