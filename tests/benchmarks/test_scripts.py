"""The scripts around the contest: environments, options, who is compared with whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    batch_memory,
    batch_recommend,
    distillation_cost,
    environments,
    evaluation_speed,
    losses,
    new_items,
    parallel_teachers,
    quality,
    random_teacher,
    students,
    teachers,
    text_encoding,
    training_speed,
    two_workers,
)
from benchmarks.distillation_cost import setting
from benchmarks.environments import OURS, PEERS, Patch, apply_patch, install_commands, is_ready
from components.distillation.config import DistillationConfig
from components.errors import UnknownNameError

SCRIPTS = (
    training_speed,
    evaluation_speed,
    batch_recommend,
    batch_memory,
    text_encoding,
    parallel_teachers,
    quality,
    losses,
    random_teacher,
    students,
    teachers,
    distillation_cost,
    two_workers,
    new_items,
    environments,
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_help(script: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])  # type: ignore[attr-defined]
    assert ended.value.code == 0
    assert "python -m benchmarks." in capsys.readouterr().out


def test_every_environment_gets_our_torch_and_an_exact_version() -> None:
    for name, peer in PEERS.items():
        commands = install_commands(name, "2.13.0")
        assert "torch==2.13.0" in commands[0]
        assert any(part == peer.package and "==" in part for command in commands for part in command)


def test_a_peer_without_its_own_list_is_installed_without_dependencies() -> None:
    assert install_commands("recbole", "2.13.0")[1][-3:] == ["--no-deps", "--ignore-requires-python", "recbole==1.2.1"]


def test_patch_changes_the_text_or_says_that_the_package_changed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = 'old'\n")
    patch = Patch("module.py", "old", "new", "needed here")
    apply_patch(tmp_path, patch)
    assert (tmp_path / "module.py").read_text() == "x = 'new'\n"
    with pytest.raises(ValueError, match=r"expected 'old'.*needed here"):
        apply_patch(tmp_path, patch)


def test_an_environment_is_ready_only_for_what_is_asked_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    assert is_ready(OURS)
    assert not is_ready("replay")
    (tmp_path / "replay").mkdir()
    (tmp_path / "replay" / "ready.json").write_text('{"package": "replay-rec==0.1"}')
    assert not is_ready("replay")


def test_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        environments.main(["replai"])
    assert "known: rectools, replay, recbole, warprec" in capsys.readouterr().err


def test_each_peer_meets_our_model_in_its_own_layout() -> None:
    sides = training_speed.contenders({"length": 50}, ["rectools", "recbole"], steps=2, epoch_steps=48)
    by_name = {side.name: side for side in sides}
    assert by_name[str(by_name["RecTools"].against)].options["norm"] == "pre"
    assert by_name[str(by_name["RecBole"].against)].options["norm"] == "post"
    assert "WarpRec" not in by_name
    assert by_name[training_speed.BEFORE].steps == 48


def test_without_peers_ours_runs_alone() -> None:
    assert [side.environment for side in training_speed.contenders({}, [], 2, 2)] == [OURS]
    assert [side.environment for side in evaluation_speed.contenders({}, [])] == [OURS]


def test_evaluation_compares_equal_layouts() -> None:
    sides = {side.name: side for side in evaluation_speed.contenders({}, ["replay", "recbole"])}
    assert sides[str(sides["RePlay"].against)].options["norm"] == "pre"
    assert sides[str(sides["RecBole"].against)].options["norm"] == "post"


def test_settings_of_distillation_are_json_where_they_can_be() -> None:
    assert setting("weight=0.5") == ("weight", 0.5)
    assert setting("candidates=all") == ("candidates", "all")
    with pytest.raises(ValueError, match="KEY=VALUE"):
        setting("weight")


def test_quality_compares_with_the_model_that_is_asked_for() -> None:
    values = {
        name: {m: np.array([0.1, x, 0.4]) for m in quality.METRICS} for name, x in (("plain", 0.1), ("prm-kd", 0.4))
    }
    by_name = {row["name"]: row for row in quality.compare(values, "prm-kd")}
    assert "gain" not in by_name["prm-kd"]
    assert by_name["plain"]["gain"] == pytest.approx(-1 / 3)
    assert {row["name"]: row.get("gain") for row in quality.compare(values)}["prm-kd"] == pytest.approx(0.5)
    with pytest.raises(UnknownNameError, match=r"'prmkd'; known: plain, prm-kd; did you mean 'prm-kd'"):
        quality.compare(values, "prmkd")


def test_teachers_are_multiplied_by_seeds_and_share_one_pretraining() -> None:
    config = {
        "name": "shop",
        "pretrain": {"domains": {}},
        "teachers": {"text": {"kind": "unisrec", "pretrained": True}, "id": {"kind": "unisrec"}},
        "distillation": {},
        "student": {"kind": "sasrec"},
    }
    run = teachers.multiply(config, [0, 4], [])
    assert list(run["teachers"]) == ["text-s0", "text-s4", "id-s0", "id-s4"]
    assert run["teachers"]["text-s4"] == {"kind": "unisrec", "pretrained": "runs/shop/pretrain/text", "seed": 4}
    assert (run["name"], run["seeds"], "distillation" in run, "pretrain" in run) == ("shop-seeds", [0, 4], False, False)
    assert list(teachers.multiply(config, [1], ["id"])["teachers"]) == ["id-s1"]


def test_the_random_teacher_takes_the_place_of_the_last(tmp_path: Path) -> None:
    run = random_teacher.with_random(
        {"teachers": {"a": {}, "b": {}, "c": {}, "d": {}}},
        {"weight": 2.0, "epsilon": 1},
        ["a", "b", "c"],
        {"kind": "external"},
    )
    assert run["teachers"] == {"a": {}, "b": {}, "c": {}, "random": {"kind": "external", "strength": 0.1}}
    assert run["distillation"] == {"weight": 2.0, "teachers": ["a", "b", "c"], "base_weights": "uniform"}
    assert run["variants"]["random-average"] == {"teachers": ["a", "b", "random"], "weights": "average"}
    assert run["variants"]["without-third"] == {"teachers": ["a", "b"]}
    assert all(DistillationConfig.model_validate({**run["distillation"], **own}) for own in run["variants"].values())
