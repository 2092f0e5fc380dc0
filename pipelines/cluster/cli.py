"""The commands for clusters. As in `pipelines.cli`, the heavy parts are imported inside them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipelines.arguments import ConfigArgument, Json, Overrides, finish

if TYPE_CHECKING:
    from pipelines.cluster.dashboard import Dashboard
    from pipelines.cluster.jobs import Outcome

app = typer.Typer()
Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        show_envvar=True,
        metavar="URL",
        help="The cluster's dashboard, such as http://127.0.0.1:8265.",
    ),
]
NO_ADDRESS: Final = "--address: missing; give the cluster's dashboard, such as http://127.0.0.1:8265"


@app.command()
def submit(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML file; or --attach, --stop.")] = None,
    overrides: Overrides = None,
    address: Address = "",
    command: Annotated[str, typer.Option(help="What to run there: run, search, or a stage.")] = "run",
    working_dir: Annotated[Path, typer.Option(metavar="FOLDER", help="Its files go along.")] = Path(),
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Files that stay, beside runs, data, .venv, .git, secrets."),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An environment variable of the job; no secrets.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Check CONFIG here; not where it names folders of the cluster.")] = True,
    wait: Annotated[bool, typer.Option(help="Follow the job, and return its exit code.")] = True,
    attach: Annotated[str, typer.Option(metavar="JOB", help="Follow a job that was submitted before.")] = "",
    stop: Annotated[str, typer.Option(metavar="JOB", help="Stop a job; the same run goes on from there later.")] = "",
    as_json: Json = False,
) -> None:
    """Run on a Ray cluster as a job: upload, follow the log, return the job's exit code."""
    outcome: list[Outcome] = []

    def work() -> Any:
        from components.errors import UserError
        from pipelines.cluster import jobs
        from pipelines.interrupt import Interrupted, interruptible

        if sum(map(bool, (config, attach, stop))) != 1:
            raise UserError("give CONFIG, or --attach JOB, or --stop JOB, and only one of them")
        job = attach or stop
        try:
            with interruptible(), _quiet():
                dashboard = _dashboard(address)
                job = job or _send(config or Path(), dashboard)
                ask = partial(jobs.follow, show=_shown(as_json)) if wait else jobs.state
                outcome.append(jobs.stop(dashboard, job) if stop else ask(dashboard, job))
        except Interrupted as interruption:
            if job:
                _say(f"\njob {job} goes on; follow it again: distilrec submit --attach {job} --address {address}")
            raise typer.Exit(interruption.exit_code) from None
        _say(f"job {job}: {outcome[0].status.lower()}. {outcome[0].message}".strip())
        return outcome[0].as_json()

    def _send(file: Path, dashboard: Dashboard) -> str:
        from pipelines.cluster import jobs
        from pipelines.load_config import load_config

        _check_command(command)
        submission = jobs.Submission(
            file, overrides or [], command, working_dir, exclude or [], jobs.environment(env or [])
        )
        job = jobs.submit(submission, dashboard, lambda: load_config(file, overrides or []) if check else None, _say)
        _say(f"job {job} runs at {dashboard.url}; interrupting this command leaves it running")
        _say(f"follow: distilrec submit --attach {job} --address {dashboard.url}")
        _say(f"stop:   distilrec submit --stop {job} --address {dashboard.url}")
        return job

    from pipelines import output

    code = output.finish(work, as_json)
    raise typer.Exit(code or (0 if stop else outcome[0].returned))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notices of Ray's client, which tells of every request."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def _dashboard(address: str) -> Dashboard:
    from components.errors import UserError
    from pipelines.cluster.dashboard import Dashboard

    if not address:
        raise UserError(NO_ADDRESS)
    return Dashboard(address)


def _check_command(command: str) -> None:
    """Refuse a command that no cluster runs.

    Raises:
        UnknownNameError: it, and the known ones.
    """
    from components.errors import UnknownNameError
    from pipelines.stages import STAGES

    if command not in (known := {"run", *STAGES}):
        raise UnknownNameError("command of a job", command, known)


def _shown(as_json: bool) -> Callable[[str], None]:
    """The job's log goes to stdout, or to stderr where that holds the document."""
    stream = sys.stderr if as_json else sys.stdout

    def show(text: str) -> None:
        stream.write(text)
        stream.flush()

    return show


def _say(text: str) -> None:
    from pipelines.output import messages

    messages().print(text, highlight=False, markup=False, soft_wrap=True)


@app.command()
def fetch(
    uri: Annotated[str, typer.Argument(metavar="URI", help="A run in an object store: s3://BUCKET/runs/NAME.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to, such as runs/NAME.")],
    as_json: Json = False,
) -> None:
    """Copy a run from an object store to this machine, to look at it or to serve it."""

    def copy() -> Any:
        from pipelines.cache import storage_errors
        from pipelines.storage.kept import fetch_run

        with storage_errors(folder):
            nodes = fetch_run(uri, folder)
        _say(f"{folder}: {len(nodes)} finished parts of {uri}")
        return {"run": str(folder), "from": uri, "nodes": nodes}

    finish(copy, as_json)


@app.command()
def plan(
    config: ConfigArgument,
    overrides: Overrides = None,
    address: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The cluster's dashboard; without it, this machine or what cluster.grows_to names."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Say what each stage will ask for, where it fits, how long it takes; refuse what can never run."""

    def show() -> Any:
        from pipelines.cluster.plan import run_plan
        from pipelines.cluster.plan_table import plan_table
        from pipelines.load_config import load_config
        from pipelines.output import results

        found = run_plan(load_config(config, overrides or []), _dashboard(address) if address else None)
        if not as_json:
            results().print(plan_table(found))
            for line in found.notes:
                _say(line)
        found.check()
        return found.as_json()

    finish(show, as_json)
