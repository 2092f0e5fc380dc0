"""A run as a Ray job: sent, followed, stopped. On the cluster it is the same command, ``python -m pipelines run``."""

from __future__ import annotations

import asyncio
import re
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from components.errors import ConfigError, ResourceError, UserError
from pipelines.cluster.dashboard import Dashboard
from pipelines.cluster.in_job import CLIENT_PYTHON, is_elsewhere, python_version
from pipelines.cluster.upload import UploadFile, gather, stage
from pipelines.config import RunConfig
from pipelines.config_file import apply_overrides, read_source

RUN: Final = "distilrec_run"  # in a job's metadata: which run folder it writes to
ACTIVE: Final = ("PENDING", "RUNNING")
POLL_SECONDS: Final = 1.0
PATIENCE: Final = 60.0  # seconds in which a lost connection may come back
STAGED_CONFIG: Final = "submitted.yaml"
SECRET_NAME: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|(^|_)KEY$", re.IGNORECASE)
URI_PASSWORD: Final = re.compile(r"://[^/\s@]+:[^/\s@]+@")


@dataclass(frozen=True)
class Submission:
    """What is sent.

    Attributes:
        config: the YAML file.
        overrides: ``key=value`` for the run.
        command: of `distilrec`, such as ``run``.
        working_dir: folder whose files the job takes along.
        excludes: patterns of files that stay.
        env: environment variables of the job; no secrets.
    """

    config: Path
    overrides: Sequence[str] = ()
    command: str = "run"
    working_dir: Path = Path()
    excludes: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a job stands.

    Attributes:
        job: its submission id.
        status: in Ray's words.
        exit_code: of its command; None while it runs, or where it never started.
        message: Ray's last word on it.
    """

    job: str
    status: str
    exit_code: int | None
    message: str

    @property
    def returned(self) -> int:
        """The exit code for whoever waits: that of the job, 1 where it ended without one."""
        if self.status in ACTIVE or self.status == "SUCCEEDED":
            return 0
        return self.exit_code or 1

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"job": self.job, "status": self.status, "exit_code": self.exit_code, "message": self.message}


def environment(pairs: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` pairs; a secret is refused, since everyone who sees the dashboard sees a job's environment.

    Raises:
        UserError: no pair, or a secret.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UserError(f"--env {name}: expected KEY=VALUE")
        if SECRET_NAME.search(name) or URI_PASSWORD.search(value):
            raise UserError(
                f"--env {name}: looks like a secret, and a job's environment is stored on the head node and shown on "
                "the "
                "dashboard; give it to the nodes instead: an instance role, a Kubernetes secret, or a file there"
            )
        found[name] = value
    return found


def check_paths(config: RunConfig, names: Sequence[str]) -> None:
    """Refuse folders that the job could not have: relative ones, unless the upload holds them.

    Args:
        config: of the run.
        names: of the uploaded files.

    Raises:
        ConfigError: the key, and where such a folder belongs.
    """
    if not is_elsewhere(config.output):
        raise ConfigError(
            f"output: {config.output} would lie in the job's own temporary folder; set output= to a folder that all "
            "nodes "
            "see, such as /shared/runs, or to s3://BUCKET/runs or gs://BUCKET/runs"
        )
    data = config.data.removeprefix("./").rstrip("/")
    if not is_elsewhere(data) and data not in ("", ".") and not any(name.startswith(f"{data}/") for name in names):
        raise ConfigError(
            f"data: {config.data} is no part of what is uploaded; set data= to a folder that all nodes see, or to "
            "s3:// or "
            "gs://"
        )
    for key in ("data", "output"):
        if URI_PASSWORD.search(getattr(config, key)):
            raise ConfigError(f"{key}: holds a password, which the job would show; let the nodes have it")


def submit(
    submission: Submission, dashboard: Dashboard, load: Callable[[], RunConfig | None], say: Callable[[str], None]
) -> str:
    """Send a job; returns its id.

    Args:
        submission: what.
        dashboard: where to.
        load: validates the configuration; None where that is left to the job.
        say: told what happens.

    Raises:
        UserError: the upload is too large, or a path of the configuration cannot be seen from the cluster.
        ResourceError: the cluster runs another Ray, or a job of this very run.
    """
    dashboard.check_version()
    config = load()
    files = gather(submission.working_dir, submission.excludes)
    name = _config_name(submission, files)
    if config is not None:
        check_paths(config, [file.name for file in files])
    run = _run_of(submission)
    client = dashboard.jobs()
    _refuse_second(client, run, dashboard)
    words = ["python", "-m", "pipelines", submission.command, name, *submission.overrides]
    say(f"uploading {len(files):,} files, {sum(file.size for file in files) / 2**20:.1f} MiB")
    with tempfile.TemporaryDirectory(prefix="distilrec-job-") as staged:
        stage(files, Path(staged))
        if name == STAGED_CONFIG:
            (Path(staged) / name).write_bytes(submission.config.read_bytes())
        try:
            return str(
                client.submit_job(
                    entrypoint=shlex.join(words),
                    submission_id=f"distilrec-{uuid.uuid4().hex[:12]}",
                    runtime_env={
                        "working_dir": staged,
                        "env_vars": {**submission.env, CLIENT_PYTHON: python_version()},
                    },
                    metadata={RUN: run},
                )
            )
        except RuntimeError as error:
            raise ResourceError(f"the cluster at {dashboard.url} refused the job: {error}") from error


def _config_name(submission: Submission, files: Sequence[UploadFile]) -> str:
    """The configuration's name in the upload; it joins the upload where it lies outside of the working folder."""
    path = submission.config.resolve()
    return next((file.name for file in files if file.path.resolve() == path), STAGED_CONFIG)


def _run_of(submission: Submission) -> str:
    """Which run folder the job writes to, as far as the file and the overrides tell."""
    source = read_source(submission.config)
    apply_overrides(source, submission.overrides)
    return f"{source.data.get('output', 'runs')}/{source.data.get('name', '')}"


def _refuse_second(client: Any, run: str, dashboard: Dashboard) -> None:
    for job in client.list_jobs():
        if job.status in ACTIVE and (job.metadata or {}).get(RUN) == run:
            where = f"--address {dashboard.url}"
            raise ResourceError(
                f"job {job.submission_id} works on {run} already; follow it: distilrec submit --attach "
                f"{job.submission_id} {where}; stop it: distilrec submit --stop {job.submission_id} {where}; or choose "
                "another name= for this run"
            )


def follow(dashboard: Dashboard, job: str, show: Callable[[str], None]) -> Outcome:
    """Show a job's log until it ends; a lost connection is taken up again.

    Raises:
        ResourceError: there is no such job, or the cluster stays away.
    """
    client = dashboard.jobs()
    shown, lost = 0, None
    while True:
        try:
            for text in _log(client, job, shown):
                shown += len(text)
                show(text)
                lost = None
            outcome = state(dashboard, job)
            if outcome.status not in ACTIVE:
                return outcome
        except (ResourceError, RuntimeError, OSError) as error:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > PATIENCE:
                raise ResourceError(
                    f"lost the cluster at {dashboard.url}: {error}; the job may go on: distilrec submit --attach {job} "
                    f"--address {dashboard.url}"
                ) from error
        time.sleep(POLL_SECONDS)  # a job that waits for a place has no log yet


def _log(client: Any, job: str, skip: int) -> Iterator[str]:
    """Pieces of the log behind its first `skip` characters, as they come; an interruption ends it in order."""
    pieces = client.tail_job_logs(job)

    async def following() -> str | None:
        text: str | None = await anext(pieces, None)
        return text

    with asyncio.Runner() as runner:  # cancels what waits when it is left
        while (text := runner.run(following())) is not None:
            if skip < len(text):
                yield text[skip:]
            skip = max(0, skip - len(text))


def state(dashboard: Dashboard, job: str) -> Outcome:
    """How a job stands.

    Raises:
        ResourceError: there is no such job, or the cluster does not answer.
    """
    try:
        info = dashboard.jobs().get_job_info(job)
    except RuntimeError as error:
        if "404" not in str(error):
            raise ResourceError(f"the cluster at {dashboard.url} does not tell of job {job}: {error}") from error
        raise ResourceError(
            f"{dashboard.url} knows no job {job!r}; `ray job list --address {dashboard.url}` names those that it knows"
        ) from error
    return Outcome(job, str(info.status.value), info.driver_exit_code, str(info.message or ""))


def stop(dashboard: Dashboard, job: str) -> Outcome:
    """Stop a job, and wait until it is over: it closes its run folder in order.

    Raises:
        ResourceError: there is no such job.
    """
    outcome = state(dashboard, job)
    if outcome.status not in ACTIVE:
        return outcome
    dashboard.jobs().stop_job(job)
    while (outcome := state(dashboard, job)).status in ACTIVE:
        time.sleep(POLL_SECONDS)
    return outcome
