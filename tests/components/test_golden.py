from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from components.artifacts.format import read_json, seal, write_json
from components.artifacts.models import load_model
from components.errors import ArtifactError
from components.golden import GOLDEN_FILE, check_golden, differs, write_golden
from components.recommender import Recommendation, Recommender, ScoredItem
from components.schema import MANIFEST_FILE
from tests.tiny_artifact import write_artifact


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = write_artifact(tmp_path / "artifact")
    write_golden(load_model(folder), folder)
    return reseal(folder)


def reseal(folder: Path) -> Path:
    (folder / MANIFEST_FILE).unlink()
    seal(folder, {"model": {"name": "tiny"}})
    return folder


def test_an_artifact_answers_its_own_golden_requests_to_the_bit(artifact: Path) -> None:
    recommender = Recommender(artifact)
    assert check_golden(recommender)
    golden = read_json(artifact / GOLDEN_FILE)
    for case in golden["cases"]:
        answer = recommender.recommend([case["history"]], golden["k"])[0]
        assert [item.item_id for item in answer.items] == case["items"]
        assert [item.score for item in answer.items] == case["scores"]
        assert not set(case["items"]) & set(case["history"])


def test_an_artifact_of_an_older_program_has_none(tmp_path: Path) -> None:
    assert not check_golden(Recommender(write_artifact(tmp_path / "artifact")))


def test_other_weights_are_found(artifact: Path, tmp_path: Path) -> None:
    other = write_artifact(tmp_path / "other", seed=1)
    (artifact / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match=r"golden request 0 is answered otherwise.*instead of.*position 1"):
        check_golden(Recommender(reseal(artifact)))


def test_a_golden_file_that_was_changed_is_found_by_its_hash(artifact: Path) -> None:
    golden = json.loads((artifact / GOLDEN_FILE).read_text())
    golden["cases"] = []
    write_json(artifact / GOLDEN_FILE, golden)
    with pytest.raises(ArtifactError, match=r"golden.json: sha256"):
        Recommender(artifact)


def test_a_golden_file_of_another_form_is_an_error(artifact: Path) -> None:
    write_json(artifact / GOLDEN_FILE, {"cases": [{"history": ["id-1"]}]})
    with pytest.raises(ArtifactError, match="not a list of golden requests"):
        check_golden(Recommender(reseal(artifact)))


def test_a_model_that_scores_nan_gets_no_golden_file(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    model = load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        write_golden(model, folder)


WANTED = [("a", 3.0), ("b", 2.0), ("c", 1.9999), ("d", 1.0)]


@pytest.mark.parametrize(
    ("items", "difference"),
    [
        ([("a", 3.0), ("b", 2.0), ("c", 1.9999), ("d", 1.0)], ""),
        ([("a", 3.001), ("b", 2.0), ("c", 1.9999), ("d", 1.0)], ""),
        ([("a", 3.0), ("c", 2.0), ("b", 1.9999), ("d", 1.0)], ""),  # near ties may change places
        ([("a", 3.0), ("b", 2.0), ("c", 1.9999), ("e", 1.0)], ""),  # and the last one with the next
        ([("a", 3.1), ("b", 2.0), ("c", 1.9999), ("d", 1.0)], "score 3.1 instead of 3 at position 1"),
        ([("b", 3.0), ("a", 2.0), ("c", 1.9999), ("d", 1.0)], "item 'b' instead of 'a' at position 1"),
        ([("e", 3.0), ("b", 2.0), ("c", 1.9999), ("d", 1.0)], "item 'e' instead of 'a' at position 1"),
        ([("a", float("nan")), ("b", 2.0), ("c", 1.9999), ("d", 1.0)], "score nan instead of 3 at position 1"),
        ([("a", 3.0)], "1 items instead of 4"),
    ],
)
def test_what_counts_as_another_answer(items: list[tuple[str, float]], difference: str) -> None:
    answer = Recommendation([ScoredItem(item, score) for item, score in items], [])
    assert differs(WANTED, answer) == difference
