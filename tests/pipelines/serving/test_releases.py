from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.errors import ArtifactError, ConfigError, StageError, UserError
from components.schema import MODEL_FILE
from pipelines.cli import main
from pipelines.serving.policy_options import policy_of
from pipelines.serving.releases import deploy, existing, overview, rollback
from serve.release.line import Line, Report, begin
from serve.release.policy import Policy
from tests.tiny_artifact import write_artifact

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return tmp_path / "releases" / "shop"


def say(_: str) -> None:
    return None


def artifact(folder: Path, seed: int = 0) -> Path:
    return write_artifact(folder / f"artifact-{seed}", seed=seed)


def test_the_first_release_serves_at_once(tmp_path: Path, shop: Path) -> None:
    done = deploy(artifact(tmp_path), shop, Policy(), say)
    assert (done.version, done.outcome, done.reason) == ("v0001", "released", "the first release of this line")
    assert Line(shop).current() == "v0001"


def test_without_an_endpoint_there_is_no_trial(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    done = deploy(artifact(tmp_path, 1), shop, Policy(), say)
    assert (done.version, done.outcome) == ("v0002", "released")
    assert "no endpoint serves this line" in done.reason


def test_with_an_endpoint_a_release_is_begun_and_followed(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    line, said = Line(shop), []

    def endpoint(text: str) -> None:
        """What an endpoint would do, between two words of the command."""
        said.append(text)
        release = line.release()
        assert release is not None
        line.write_release(release.model_copy(update={"outcome": "rejected", "reason": "it is slow"}))

    line.report(Report(replica="a", time=time.time(), serving="v0001"))
    done = deploy(artifact(tmp_path, 1), shop, Policy(), endpoint)
    assert (done.outcome, done.reason) == ("rejected", "it is slow")
    assert said[0] == "v0002 is on trial against v0001"
    assert "v0002: shadow" in said


def test_now_asks_for_no_trial(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    line = Line(shop)
    line.report(Report(replica="a", time=time.time(), serving="v0001"))
    assert deploy(artifact(tmp_path, 1), shop, Policy(), say, trial=False).reason == "without a trial, as asked"
    assert line.current() == "v0002"


def test_a_damaged_artifact_changes_nothing(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    bad = artifact(tmp_path, 1)
    (bad / MODEL_FILE).write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=MODEL_FILE):
        deploy(bad, shop, Policy(), say)
    assert [row["version"] for row in overview(shop)["versions"]] == ["v0001"]


def test_rollback_goes_one_release_back_each_time(tmp_path: Path, shop: Path) -> None:
    for seed in range(3):
        deploy(artifact(tmp_path, seed), shop, Policy(), say)
    assert rollback(shop).version == "v0002"
    assert rollback(shop, "v0001").version == "v0001"
    assert Line(shop).current() == "v0001"
    with pytest.raises(UserError, match="v0009"):
        rollback(shop, "v0009")


def test_going_back_twice_does_not_return_to_where_it_came_from(tmp_path: Path, shop: Path) -> None:
    for seed in range(3):
        deploy(artifact(tmp_path, seed), shop, Policy(), say)
    assert [rollback(shop).version for _ in range(2)] == ["v0002", "v0001"]
    with pytest.raises(UserError, match="nothing served before v0001"):
        rollback(shop)
    deploy(artifact(tmp_path, 3), shop, Policy(), say)
    assert rollback(shop).version == "v0001"


def test_a_deployment_that_is_refused_leaves_no_copy(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    line = Line(shop)
    line.registry.put("shop", artifact(tmp_path, 1), promote=False)
    begin(line, "v0002", Policy(), time.time())
    with pytest.raises(UserError, match="release of v0002 is under way"):
        deploy(artifact(tmp_path, 2), shop, Policy(), say)
    assert [row["version"] for row in overview(shop)["versions"]] == ["v0001", "v0002"]


def test_an_endpoint_that_fell_silent_gets_no_model_without_a_trial(tmp_path: Path, shop: Path) -> None:
    """It may be alive and overloaded."""
    deploy(artifact(tmp_path), shop, Policy(), say)
    line, second = Line(shop), artifact(tmp_path, 1)
    line.report(Report(replica="a", time=time.time() - 20, serving="v0001"))
    with pytest.raises(UserError, match=r"silent since; wait .* or use --now"):
        deploy(second, shop, Policy(), say)
    assert line.current() == "v0001"
    line.report(Report(replica="a", time=time.time() - 90, serving="v0001"))
    assert deploy(second, shop, Policy(), say).outcome == "released"


def test_a_rollback_does_not_wait_for_pytorch() -> None:
    modules = "pipelines.cli, pipelines.serving.releases, pipelines.serving.releases_table, sys"
    code = f"import {modules}; print([name for name in ('torch', 'ray', 'polars') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rollback_needs_something_before(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    with pytest.raises(UserError, match="nothing served before v0001"):
        rollback(shop)


def test_rollback_ends_what_is_under_way(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    line = Line(shop)
    line.registry.put("shop", artifact(tmp_path, 1), promote=False)
    begin(line, "v0002", Policy(), time.time())
    done = rollback(shop)
    release = line.release()
    assert release is not None
    assert (release.outcome, release.reason) == ("aborted", "rolled back by hand")
    assert (done.version, line.current()) == ("v0001", "v0001")


def test_a_deployment_whose_release_is_replaced_says_so(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    line = Line(shop)
    line.report(Report(replica="a", time=time.time(), serving="v0001"))

    def replaced(_: str) -> None:
        release = line.release()
        assert release is not None
        line.write_release(release.model_copy(update={"id": "another"}))

    with pytest.raises(StageError, match="another release took the place"):
        deploy(artifact(tmp_path, 1), shop, Policy(), replaced)


def test_a_folder_without_releases_is_said(tmp_path: Path, shop: Path) -> None:
    deploy(artifact(tmp_path), shop, Policy(), say)
    with pytest.raises(UserError, match=r"no line of releases; make one with .*, or take one of: .*shop"):
        existing(shop.parent / "other")


@pytest.mark.parametrize("option", ["step_seconds", "speed=3", "step_seconds=-1", "shares=[0.5, 0.1]", "shares=[", "x"])
def test_bounds_are_checked(option: str) -> None:
    with pytest.raises(ConfigError, match="--set "):
        policy_of([option])


def test_bounds_are_read() -> None:
    assert policy_of(["step_seconds=5", "shares=[0.1]"]) == Policy(step_seconds=5, shares=(0.1,))


def test_the_commands(
    tmp_path: Path, shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["distilrec", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    for seed in range(2):
        code, _ = run("deploy", str(artifact(tmp_path, seed)), "--line", str(shop))
        assert code == 0
    code, out = run("rollback", str(shop), "--json")
    assert (code, json.loads(out)["version"]) == (0, "v0001")
    code, out = run("releases", str(shop), "--json")
    assert [entry["event"] for entry in json.loads(out)["history"]] == [
        "registered",
        "released",
        "registered",
        "released",
        "released",
    ]
    code, out = run("releases", str(shop))
    assert code == 0
    assert "v0001 serves" in out
    assert run("rollback", str(tmp_path / "nowhere"))[0] == 2
    assert run("deploy", str(tmp_path / "nothing"))[0] == 2
