from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.artifacts.registry import Registry
from components.errors import ArtifactError, UserError
from components.recommender import Recommender
from pipelines.recommend import recommend
from pipelines.served import find_artifact
from tests.tiny_artifact import write_artifact


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "run" / "export")
    return tmp_path / "run"


def test_json_is_the_ranking(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recommend(run, ["id-3", "nope"], k=4, as_json=True)
    body = json.loads(capsys.readouterr().out)
    expected = Recommender(run / "export").recommend([["id-3"]], 4)[0]
    assert [item["item_id"] for item in body["items"]] == [item.item_id for item in expected.items]
    assert body["unknown_items"] == ["nope"]
    assert body["model"].startswith("tiny@")


def test_the_table_shows_the_ranking_in_order(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recommend(run, ["id-3", "no[b]pe"], k=4)
    shown = capsys.readouterr()
    expected = [item.item_id for item in Recommender(run / "export").recommend([["id-3"]], 4)[0].items]
    places = [shown.out.index(f" {name} ") for name in expected]
    assert places == sorted(places)
    assert "ignored: no[b]pe" in shown.err


def test_a_fallback_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recommend(run, [], k=1)
    assert "most popular" in capsys.readouterr().err


def test_a_run_an_artifact_and_a_release_are_found(run: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")
    registry.put("shop", run / "export")
    assert find_artifact(run) == find_artifact(run / "export") == (run / "export").resolve()
    assert find_artifact(tmp_path / "releases" / "shop").name == "v0001"


def test_where_nothing_is_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; give a run such as runs/NAME"):
        find_artifact(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no export; finish the run first with `distilrec run CONFIG`"):
        find_artifact(tmp_path)


def test_a_corrupt_export_and_a_wrong_k_are_errors(run: Path) -> None:
    with pytest.raises(UserError, match="k must be at least 1"):
        recommend(run, ["id-1"], k=0)
    (run / "export" / "items.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"items.parquet: missing"):
        recommend(run, ["id-1"])
