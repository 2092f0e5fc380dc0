from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from components.errors import ConfigError, ResourceError, UserError
from pipelines.cluster import jobs
from pipelines.cluster.in_job import CLIENT_PYTHON, JOB, check_job, python_version
from pipelines.cluster.jobs import RUN, Outcome, Submission, check_paths, environment, follow, stop, submit
from pipelines.load_config import load_config
from tests.pipelines.run_configs import PLAIN_RUN, make_config, write_config


class FakeClient:
    """Ray's client for jobs, with one job whose log breaks off once."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.known: list[Any] = []
        self.statuses = [JobStatus.RUNNING, JobStatus.FAILED]
        self.log = ["prepare: starts\n", "prepare: failed\n"]
        self.breaks = 1
        self.uploaded: set[str] = set()
        self.stopped = False

    def list_jobs(self) -> list[Any]:
        return self.known

    def submit_job(self, **what: Any) -> str:
        self.submitted.append(what)
        folder = Path(what["runtime_env"]["working_dir"])
        self.uploaded = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        return str(what["submission_id"])

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for number, line in enumerate(self.log):
            if number == 1 and self.breaks:
                self.breaks -= 1
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield line

    def stop_job(self, job: str) -> bool:
        self.stopped, self.statuses = True, [JobStatus.STOPPED]
        return True

    def get_job_info(self, job: str) -> Any:
        if job == "none":
            raise RuntimeError("Request failed with status code 404: no such job")
        status = self.statuses[0] if len(self.statuses) == 1 else self.statuses.pop(0)
        return SimpleNamespace(
            status=status, driver_exit_code=2 if status == JobStatus.FAILED else None, message="It ended."
        )


class FakeCluster:
    url = "http://127.0.0.1:8265"

    def __init__(self) -> None:
        self.client = FakeClient()

    def jobs(self) -> Any:
        return self.client

    def check_version(self) -> None:
        """The same Ray."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)
    return FakeCluster()


def sent(tmp_path: Path, cluster: Any, *overrides: str, **more: Any) -> dict[str, Any]:
    config = write_config(tmp_path, {**PLAIN_RUN, "output": "/shared/runs"})
    submission = Submission(config, overrides, working_dir=tmp_path, **more)
    submit(submission, cluster, lambda: load_config(config, overrides), lambda text: None)
    found: dict[str, Any] = cluster.client.submitted[-1]
    return found


def test_a_job_is_the_same_command_with_the_files_of_the_folder(tmp_path: Path, cluster: Any) -> None:
    job = sent(tmp_path, cluster, "training.epochs=3", "seeds=[0, 1]", env={"COLOR": "blue"})
    assert job["entrypoint"] == "python -m pipelines run config.yaml training.epochs=3 'seeds=[0, 1]'"
    assert job["metadata"] == {RUN: "/shared/runs/plain"}
    assert job["runtime_env"]["env_vars"] == {"COLOR": "blue", CLIENT_PYTHON: python_version()}
    assert {"config.yaml", "pipelines/__main__.py"} <= cluster.client.uploaded
    assert not Path(job["runtime_env"]["working_dir"]).exists()


def test_a_configuration_from_elsewhere_joins_the_upload(tmp_path: Path, cluster: Any) -> None:
    (tmp_path / "empty").mkdir()
    config = write_config(tmp_path, {**PLAIN_RUN, "output": "s3://bucket/runs"})
    submit(Submission(config, working_dir=tmp_path / "empty"), cluster, lambda: None, lambda text: None)
    assert cluster.client.submitted[0]["entrypoint"].endswith(f"run {jobs.STAGED_CONFIG}")
    assert jobs.STAGED_CONFIG in cluster.client.uploaded


def test_a_second_job_on_the_same_run_is_refused(tmp_path: Path, cluster: Any) -> None:
    running = SimpleNamespace(submission_id="first", status=JobStatus.RUNNING, metadata={RUN: "/shared/runs/plain"})
    ended = SimpleNamespace(submission_id="old", status=JobStatus.FAILED, metadata={RUN: "/shared/runs/plain"})
    cluster.client.known = [ended]
    sent(tmp_path, cluster)
    cluster.client.known = [ended, running]
    with pytest.raises(
        ResourceError, match=r"job first works on /shared/runs/plain already.*--attach first.*--stop first"
    ):
        sent(tmp_path, cluster)
    sent(tmp_path, cluster, "name=other")


def test_the_log_goes_on_where_it_broke_off_and_the_jobs_exit_code_comes_back(cluster: Any) -> None:
    shown: list[str] = []
    outcome = follow(cluster, "job", shown.append)
    assert "".join(shown) == "prepare: starts\nprepare: failed\n"
    assert outcome == Outcome("job", "FAILED", 2, "It ended.")
    assert outcome.returned == 2


def test_a_cluster_that_stays_away_ends_the_waiting(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PATIENCE", 0.0)
    cluster.client.breaks = 100
    with pytest.raises(ResourceError, match=r"lost the cluster .*the job may go on: distilrec submit --attach job"):
        follow(cluster, "job", lambda text: None)


def test_stopping_waits_for_the_end(cluster: Any) -> None:
    cluster.client.statuses = [JobStatus.RUNNING]
    assert stop(cluster, "job").status == "STOPPED"
    assert cluster.client.stopped
    with pytest.raises(ResourceError, match="knows no job 'none'; `ray job list"):
        stop(cluster, "none")


@pytest.mark.parametrize(
    ("status", "code", "expected"), [("SUCCEEDED", 0, 0), ("STOPPED", None, 1), ("RUNNING", None, 0)]
)
def test_what_a_waiting_script_gets(status: str, code: int | None, expected: int) -> None:
    assert Outcome("job", status, code, "").returned == expected


@pytest.mark.parametrize(
    "pair", ["RAY_AUTH_TOKEN=x", "aws_secret_access_key=x", "DB=redis://me:word@host/0", "MY_API_KEY=x"]
)
def test_secrets_never_enter_the_environment_of_a_job(pair: str) -> None:
    with pytest.raises(UserError, match="looks like a secret") as refused:
        environment([pair])
    assert pair.partition("=")[2] not in str(refused.value).split()


def test_other_variables_do() -> None:
    assert environment(["A=1", "KEYBOARD=de", "URL=http://host:80/a=b"]) == {
        "A": "1",
        "KEYBOARD": "de",
        "URL": "http://host:80/a=b",
    }
    with pytest.raises(UserError, match="expected KEY=VALUE"):
        environment(["A"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output=runs", "output: runs would lie in the job's own temporary folder"),
        ("data=logs", "data: logs is no part of what is uploaded"),
        ("data=s3://key:word@bucket/x", "data: holds a password"),
    ],
)
def test_folders_that_the_job_could_not_have_are_refused(tmp_path: Path, override: str, message: str) -> None:
    config = make_config(tmp_path, PLAIN_RUN, "output=/shared/runs", override)
    with pytest.raises(ConfigError, match=message):
        check_paths(config, ["config.yaml"])


def test_data_that_is_uploaded_may_be_relative(tmp_path: Path) -> None:
    check_paths(make_config(tmp_path, PLAIN_RUN, "output=/shared/runs", "data=./logs"), ["logs/log.csv"])


def test_a_job_looks_at_its_python_and_its_output_first() -> None:
    job = {JOB: "{}"}
    check_job("runs", {})
    check_job("/shared/runs", job)
    check_job("s3://bucket/runs", {**job, CLIENT_PYTHON: python_version()})
    with pytest.raises(ConfigError, match="output: runs would lie in the job's own temporary folder"):
        check_job("runs", job)
    with pytest.raises(ResourceError, match=rf"runs Python {python_version()} .* that submitted this job 3\.99"):
        check_job("/shared/runs", {**job, CLIENT_PYTHON: "3.99"})
