from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.data.synthetic import write_world
from components.errors import ConfigError, ResourceError
from pipelines.cli import app
from pipelines.cluster import estimate
from pipelines.cluster.estimate import DataSize, Power
from pipelines.cluster.node_types import read_node_types
from pipelines.cluster.placement import PlacementConfig
from pipelines.cluster.plan import run_plan
from pipelines.config import ClusterConfig
from pipelines.ray_session import check_data_role, check_resources, own_roles
from tests.pipelines.cluster.fake_dashboard import ANSWERS, dashboard
from tests.pipelines.run_configs import FULL, PLAIN_RUN, make_config, write_config

ROOT = Path(__file__).parents[3]
MIXED = [{"CPU": 8.0, "data": 1000.0, "students": 1000.0}, {"CPU": 4.0, "GPU": 1.0, "teachers": 1000.0}]
ROLES = {role: {role: 0.001} for role in ("data", "teachers", "students")}


def asks(config: Any, cluster: Any = None) -> dict[str, Any]:
    return {ask.work: ask for ask in run_plan(config, cluster).asks}


@pytest.mark.parametrize(("role", "workers", "gpu"), [("teachers", 1, True), ("students", 7, False)])
def test_a_role_is_held_against_its_own_nodes(role: Any, workers: int, gpu: bool) -> None:
    cluster = ClusterConfig(placement=PlacementConfig.model_validate(ROLES), num_workers=workers, use_gpu=gpu)
    check_resources(cluster, MIXED, "cluster", role)
    check_data_role(cluster, MIXED)


@pytest.mark.parametrize(
    ("role", "cluster", "message"),
    [
        ("teachers", {"num_workers": 5}, r"takes 5 CPUs .* has 4 CPUs on 1 node of cluster\.placement\.teachers"),
        ("students", {"use_gpu": True}, r"takes 1 GPUs, but the cluster has 0 of cluster\.placement\.students"),
        (
            "teachers",
            {"placement": {"teachers": {"tpu": 1}}},
            r"asks for {'tpu': 1\.0}, which no node .* data, students",
        ),
    ],
)
def test_what_the_other_nodes_have_does_not_help(role: Any, cluster: dict[str, Any], message: str) -> None:
    asked = ClusterConfig.model_validate({"placement": ROLES, **cluster})
    with pytest.raises(ResourceError, match=message):
        check_resources(asked, MIXED, "cluster", role)


def test_a_session_on_this_machine_has_a_place_for_every_role() -> None:
    cluster = ClusterConfig(placement=PlacementConfig.model_validate(ROLES))
    check_resources(cluster, [{"CPU": 4.0, **own_roles(cluster)}], "cluster", "teachers")
    with pytest.raises(ValueError, match="GPU: no custom resource"):
        PlacementConfig(teachers={"GPU": 1})


def test_node_types_of_both_kinds_of_files(tmp_path: Path) -> None:
    for file in (ROOT / "cluster.yaml", ROOT / "deploy/kuberay/rayjob.yaml"):
        types = {kind.name: kind for kind in read_node_types(file)}
        assert types["teachers"].resources["GPU"] == 1
        assert types["teachers"].resources["teachers"] == 1000
        assert len(types["data"].nodes()) == 8
    (tmp_path / "other.yaml").write_text("kind: Pod\nspec: {}\n")
    with pytest.raises(ConfigError, match=r"cluster\.grows_to: .*other\.yaml has neither available_node_types"):
        read_node_types(tmp_path / "other.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        read_node_types(tmp_path / "none.yaml")


def test_a_plan_says_what_every_stage_asks_for_and_where(tmp_path: Path) -> None:
    settings = ["output=/shared/runs", f"cluster.grows_to={ROOT / 'cluster.yaml'}"]
    settings += [f"cluster.placement={json.dumps(ROLES)}", "teachers.text.resources.use_gpu=true"]
    found = asks(make_config(tmp_path, FULL, *settings))
    assert found["prepare"].custom == {"data": 0.001}
    assert found["teach/text"].gpus == 1
    assert found["teach/text"].places == 4
    assert found["distill/prm-kd"].custom == {"students": 0.001}
    assert found["distill/prm-kd"].places == 8 * 16
    assert found["distill/prm-kd"].nodes == 2
    assert found["export"].role == "driver"
    assert not any(ask.problem for ask in found.values())


def test_an_impossible_request_is_refused_and_named(tmp_path: Path) -> None:
    settings = ["output=/shared/runs", f"cluster.grows_to={ROOT / 'cluster.yaml'}", "cluster.num_workers=9"]
    settings += [f"cluster.placement={json.dumps(ROLES)}", "cluster.use_gpu=true"]
    plan = run_plan(make_config(tmp_path, FULL, *settings))
    with pytest.raises(ResourceError, match=r"teach/text: teachers\.text\.resources\.use_gpu=true .* takes 9 GPUs"):
        plan.check()


def test_what_a_live_cluster_has_counts(tmp_path: Path) -> None:
    from pipelines.cluster.dashboard import Dashboard

    config = make_config(tmp_path, PLAIN_RUN, "output=/shared/runs", "cluster.num_workers=4")
    with dashboard() as url:
        plan = run_plan(config, Dashboard(url, {}))
    assert plan.nodes == [{"CPU": 4.0, "memory": 8e9}]
    with pytest.raises(ResourceError, match="takes 4 CPUs and 1 more must stay free for Ray Data"):
        plan.check()


def test_a_table_that_no_node_can_hold_is_refused() -> None:
    held = estimate.training(DataSize(10**9, 10**7, 10**9, exact=True), {"dim": 64}, make_training(), Power(8, 0)).bytes
    assert held is not None
    assert held > 10**9 * 64 * 16


def make_training() -> Any:
    from components.training.config import TrainingConfig

    return TrainingConfig(epochs=1)


def test_estimates_grow_with_the_data_and_shrink_with_the_machine() -> None:
    small, large = DataSize.of_rows(10**5), DataSize.of_rows(10**7)
    one, eight = Power(1, 0), Power(8, 0)

    def seconds(size: DataSize, power: Power) -> float:
        found = estimate.training(size, {"dim": 64}, make_training(), power).seconds
        assert found is not None
        return found

    assert seconds(large, one) > 10 * seconds(small, one)
    assert seconds(large, one) > 6 * seconds(large, eight)
    assert estimate.training(small, {"backbone": "bert"}, make_training(), one).seconds is None


def test_the_command_prints_the_plan_and_refuses_with_2(tmp_path: Path) -> None:
    world = tmp_path / "world"
    write_world(world, num_users=40, num_items=60, domains=("gear",), pictures=False)
    content = {**PLAIN_RUN, "data": str(world), "input": {"interactions": "gear/interactions.csv"}}
    file = write_config(tmp_path, {**content, "output": str(tmp_path / "runs")})
    fine = CliRunner().invoke(app, ["plan", str(file), "--json"])
    assert fine.exit_code == 0, fine.output
    document = json.loads(fine.stdout)
    assert [stage["work"] for stage in document["stages"]][:2] == ["prepare", "distill/mostpop"]
    assert document["data"]["rows"] > 0
    assert all(stage["seconds"] for stage in document["stages"])
    assert not (tmp_path / "runs").exists()
    refused = CliRunner().invoke(app, ["plan", str(file), "cluster.num_workers=99"])
    assert refused.exit_code == 2
    assert "impossible" in refused.stdout
    assert "cluster.num_workers=99" in refused.stderr
    assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit"], "give CONFIG, or --attach JOB, or --stop JOB"),
        (["submit", "a.yaml", "--attach", "b"], "and only one of them"),
        (["submit", "a.yaml"], "--address: missing"),
        (["submit", "a.yaml", "--address", "http://127.0.0.1:9"], "no Ray cluster answers at http://127.0.0.1:9"),
        (["plan", "CONFIG", "--address", "http://127.0.0.1:9"], "no Ray cluster answers"),
    ],
)
def test_bad_commands_end_with_2_and_no_traceback(tmp_path: Path, arguments: list[str], message: str) -> None:
    file = write_config(tmp_path, PLAIN_RUN)
    words = [str(file) if word == "CONFIG" else word for word in arguments]
    result = CliRunner().invoke(app, words, env={"RAY_API_SERVER_ADDRESS": ""})
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_submitting_from_the_command_line_refuses_before_it_uploads(tmp_path: Path) -> None:
    file = write_config(tmp_path, PLAIN_RUN)
    with dashboard() as url:
        unknown = CliRunner().invoke(app, ["submit", str(file), "--address", url, "--command", "serve"])
        lost = CliRunner().invoke(app, ["submit", str(file), "--address", url, "--working-dir", str(tmp_path)])
    assert "unknown command of a job 'serve'" in unknown.stderr
    assert lost.exit_code == 2
    assert "output: runs would lie in the job's own temporary folder" in lost.stderr
    with dashboard({**ANSWERS, "/api/version": {"ray_version": "2.9.3"}}) as url:
        old = CliRunner().invoke(app, ["submit", str(file), "--address", url])
    assert "runs Ray 2.9.3" in old.stderr
