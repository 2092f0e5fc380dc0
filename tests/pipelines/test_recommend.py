from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.artifacts.registry import Registry
from components.catalog_filters import Filter
from components.errors import ArtifactError, UserError
from components.recommender import Query, Recommender
from pipelines.cli import app
from pipelines.recommend import filter_of, recommend
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


def test_filters_and_reasons(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run)
    write_artifact(run / "export", attributes=True)
    wanted = filter_of(["color=red", "color=blue"], ["kinds=all, of them"], None, ["id-6"])
    recommend(run, ["id-3", "id-7"], k=4, as_json=True, wanted=wanted, explain=True)
    body = json.loads(capsys.readouterr().out)
    query = Query(["id-3", "id-7"], 4, filter=wanted, explain=True)
    expected = Recommender(run / "export").answer([query])[0]
    assert [item["item_id"] for item in body["items"]] == [item.item_id for item in expected.items]
    assert all(int(item["item_id"].removeprefix("id-")) % 6 in (0, 2) for item in body["items"])
    assert body["items"][0]["because"][0] == asdict((expected.items[0].because or ())[0])
    recommend(run, ["id-3", "id-7"], k=4, wanted=wanted, explain=True)
    assert "because of" in capsys.readouterr().out
    recommend(run, ["id-3"], k=1, as_json=True)
    assert set(json.loads(capsys.readouterr().out)["items"][0]) == {"item_id", "score", "title"}


def test_a_filter_option_needs_a_value() -> None:
    assert filter_of([], [], None, []) is None
    assert filter_of(["a=b=c"], [], ["x"], []) == Filter.of({"a": ["b=c"]}, allow_items=["x"])
    for wrong in ("brand", "=3M"):
        with pytest.raises(UserError, match=rf"--deny {wrong}: expected ATTRIBUTE=VALUE"):
            filter_of([], [wrong], None, [])


def test_the_command_takes_filters(run: Path) -> None:
    shutil.rmtree(run)
    write_artifact(run / "export", attributes=True)
    call = ["recommend", str(run), "--history", "id-3", "--json"]
    answer = CliRunner().invoke(app, [*call, "--allow", "color=red", "--deny-item", "id-6", "--explain"])
    assert answer.exit_code == 0
    assert {int(item["item_id"].removeprefix("id-")) % 3 for item in json.loads(answer.stdout)["items"]} == {0}
    only = CliRunner().invoke(app, [*call, "--allow-item", "id-9", "--allow-item", "id-8"])
    assert {item["item_id"] for item in json.loads(only.stdout)["items"]} == {"id-8", "id-9"}
    wrong = CliRunner().invoke(app, [*call, "--allow", "colour=red"])
    assert wrong.exit_code == 2
    assert "known: color, kinds" in wrong.stderr


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
