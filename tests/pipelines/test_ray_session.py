from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from components.errors import ResourceError
from pipelines.cluster.in_job import JOB
from pipelines.config import ClusterConfig
from pipelines.ray_session import (
    check_resources,
    cluster_address,
    prepare_environment,
    ray_session,
    session_environment,
    start_ray,
    use_gpu,
    why_not,
)

FOUR = [{"CPU": 4.0}]


@pytest.mark.parametrize(
    ("cluster", "nodes"),
    [
        ({}, FOUR),
        ({"num_workers": 3}, FOUR),
        ({"num_workers": 2, "cpus_per_worker": 0.5}, [{"CPU": 2.0}]),
        ({"num_workers": 2, "use_gpu": True}, [{"CPU": 8.0, "GPU": 2.0}]),
        ({"num_workers": 6}, [{"CPU": 4.0}, {"CPU": 4.0}]),
    ],
)
def test_possible_requests_pass(cluster: dict[str, object], nodes: list[dict[str, float]]) -> None:
    check_resources(ClusterConfig.model_validate(cluster), nodes)


@pytest.mark.parametrize(
    ("cluster", "nodes", "message"),
    [
        (
            {"num_workers": 40},
            FOUR,
            r"cluster\.num_workers=40 with cluster\.cpus_per_worker=1 takes 40 CPUs .* has 4 CPUs on 1 node",
        ),
        ({"num_workers": 2}, [{"CPU": 2.0}], "takes 2 CPUs and 1 more must stay free for Ray Data"),  # would hang
        ({"cpus_per_worker": 5}, [{"CPU": 4.0}, {"CPU": 4.0}], "the largest node 4; lower cpus_per_worker"),
        ({"use_gpu": True}, FOUR, r"takes 1 GPUs, but the cluster has 0; .* set cluster\.use_gpu=auto"),
        ({"num_workers": 3, "use_gpu": True}, [{"CPU": 8.0, "GPU": 2.0}], "takes 3 GPUs, but the cluster has 2"),
        ({}, [], "the cluster has 0 CPUs on 0 nodes"),
    ],
)
def test_impossible_requests_say_what_was_asked_and_what_exists(
    cluster: dict[str, object], nodes: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(ResourceError, match=message):
        check_resources(ClusterConfig.model_validate(cluster), nodes)


@pytest.mark.parametrize(
    ("setting", "workers", "gpus", "expected"),
    [("auto", 1, 0, False), ("auto", 1, 1, True), ("auto", 2, 1, False), (False, 1, 8, False), (True, 1, 1, True)],
)
def test_gpus_are_used_where_every_worker_gets_one(setting: object, workers: int, gpus: float, expected: bool) -> None:
    cluster = ClusterConfig.model_validate({"use_gpu": setting, "num_workers": workers})
    assert use_gpu(cluster, gpus) is expected


def test_the_environment_is_set_before_ray_starts_and_the_users_own_stays() -> None:
    environment = {"OMP_NUM_THREADS": "3"}
    prepare_environment(environment)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"


def test_a_local_session_gets_a_secret_token_unless_authentication_is_set() -> None:
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    prepare_environment(first)
    prepare_environment(second)
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    chosen = {"RAY_AUTH_MODE": "disabled"}
    prepare_environment(chosen)
    assert chosen["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in chosen


def test_the_address_comes_from_the_configuration_then_the_environment() -> None:
    environment = {"RAY_ADDRESS": "10.0.0.1:6379"}
    assert cluster_address(ClusterConfig(), {}) is None
    assert cluster_address(ClusterConfig(), environment) == "10.0.0.1:6379"
    assert cluster_address(ClusterConfig(address="auto"), environment) == "auto"


@pytest.mark.parametrize(
    ("reason", "help"),
    [
        (
            "Version mismatch: The cluster was started with:\n Ray: 2.9.3",
            "Ray: 2.9.3; install the same Ray and Python here",
        ),
        (
            "Authentication failed: token is invalid",
            "put the cluster's token into a file and name it in RAY_AUTH_TOKEN_PATH",
        ),
        ("Failed to connect", "check cluster.address and RAY_ADDRESS"),
    ],
)
def test_who_cannot_join_a_cluster_learns_what_to_do(reason: str, help: str) -> None:
    assert help in why_not(RuntimeError(reason))


def test_a_job_brings_its_own_variables_and_gets_the_missing_ones() -> None:
    alone = session_environment({})
    assert [Path(folder).name for folder in alone["py_modules"]] == ["components", "pipelines", "serve", "tune_spaces"]
    brought = json.dumps({"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "3"}}})
    in_job = session_environment({JOB: brought})
    assert "py_modules" not in in_job
    assert "OMP_NUM_THREADS" not in in_job["env_vars"]
    assert in_job["env_vars"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert session_environment({JOB: "{}"})["env_vars"]["OMP_NUM_THREADS"] == "1"


def test_a_session_that_is_there_is_used_and_left_running(ray_session: None) -> None:
    import ray

    from pipelines.ray_session import ray_session as open_session

    with open_session(ClusterConfig()):
        assert ray.is_initialized()
    assert ray.is_initialized()
    with pytest.raises(ResourceError, match="num_workers=99"), open_session(ClusterConfig(num_workers=99)):
        pass


def test_an_address_where_nothing_listens_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**_: object) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with (
        pytest.raises(ResourceError, match=r"cannot join the Ray cluster at '10\.9\.9\.9:6379': Failed to connect"),
        ray_session(ClusterConfig(address="10.9.9.9:6379")),
    ):
        pass


def test_the_local_session_is_private_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    seen: dict[str, object] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: seen.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_session(ClusterConfig(object_store_mb=100)):
        folder = str(seen["_temp_dir"])
        assert os.path.isdir(folder)
        assert len(folder) < 60  # sockets below it have at most 107 characters
    assert not os.path.exists(folder)
    assert seen["num_cpus"] == max(4, os.cpu_count() or 1)
    assert seen["object_store_memory"] == 100 * 2**20
    assert seen["include_dashboard"] is False
    assert seen["log_to_driver"] is False


def test_an_impossible_request_fails_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def never(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", never)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(ResourceError, match=r"num_workers=3 .* the cluster has 2 CPUs"),
        ray_session(ClusterConfig(num_workers=3, num_cpus=2)),
    ):
        pass


def test_an_impossible_request_of_one_teacher_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    others = {"teachers.big.resources": ClusterConfig(num_workers=8, cpus_per_worker=2)}
    with (
        pytest.raises(ResourceError, match=r"teachers\.big\.resources\.num_workers=8 .* takes 16 CPUs .* has 4 CPUs"),
        ray_session(ClusterConfig(num_cpus=4), others),
    ):
        pass


def test_workers_share_a_gpu_at_a_fraction() -> None:
    assert use_gpu(ClusterConfig(num_workers=2, gpus_per_worker=0.5), 1.0)
    assert not use_gpu(ClusterConfig(num_workers=2), 1.0)
    check_resources(ClusterConfig(num_workers=2, gpus_per_worker=0.5, use_gpu=True), [{"CPU": 8.0, "GPU": 1.0}])


class Starts:
    """Fails so often, then starts."""

    def __init__(self, failures: int) -> None:
        self.failures, self.undone = failures, 0

    def start(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("Failed to start GCS.\nmany lines")

    def undo(self) -> None:
        self.undone += 1


def test_a_start_that_met_another_is_tried_again() -> None:
    starts = Starts(2)
    start_ray(starts.start, starts.undo)
    assert (starts.failures, starts.undone) == (0, 2)


def test_a_machine_that_cannot_start_ray_is_told_so_in_one_line() -> None:
    starts = Starts(9)
    with pytest.raises(ResourceError, match=r"^cannot start Ray on this machine: Failed to start GCS\.; .*$"):
        start_ray(starts.start, starts.undo)
