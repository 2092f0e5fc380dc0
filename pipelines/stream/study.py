"""`distilrec study esapn`: methods, tasks and seeds as trials of Ray Tune, then Tables 1 and 2, Figures 4 and 5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from components.errors import ConfigError, StageError
from components.reports.stream import stream_document
from components.reports.stream_markdown import stream_markdown
from components.reports.study.markdown import replace_part
from pipelines.cache import read_stored, write_atomically
from pipelines.config import RunConfig
from pipelines.driver import execute_run, holding, plan_run
from pipelines.interrupt import interruptible
from pipelines.output import messages, results
from pipelines.progress import Board
from pipelines.ray_session import ray_session
from pipelines.stream.results import print_tables, read_finished, stream_facts, write_document
from pipelines.stream.trials import STUDY_FOLDER, StreamTrial, StreamWork, study_trials

NAME: Final = "esapn"
PREFIX: Final = "esapn-"


@dataclass(frozen=True)
class StudyOutcome:
    """What a start of the study did: its trials, how many of them ran, and why some failed, by title."""

    trials: list[StreamTrial]
    ran: int
    failures: dict[str, str]


def study_esapn(
    config: RunConfig, command: str, *, dry_run: bool = False, as_json: bool = False, write: Path | None = None
) -> dict[str, Any]:
    """Run what is missing of the study, and write its tables, pictures and texts; returns what ``--json`` prints.

    Args:
        config: a run whose log is prepared as a stream.
        command: what repeats it.
        dry_run: only say what would run.
        as_json: keep stdout for the document.
        write: a Markdown document whose part of this data set is replaced.

    Raises:
        ConfigError: the configuration is no stream.
        DistilrecError: the run failed.
    """
    if not config.streams:
        raise ConfigError(f"the configuration of {config.name} is no stream; set `prepare: {{task: ratings}}`")
    if dry_run:
        return _plan(config, as_json)
    outcome = run_study(config)
    with interruptible():
        document = _document(config, outcome)
        folder = config.folder / STUDY_FOLDER
        written = write_document(document, folder, f"{PREFIX}main.json", PREFIX)
        text = stream_markdown(document, command, [file.name for file in written if file.suffix == ".svg"])
        write_atomically(folder / f"{PREFIX}reproduction.md", text)
        written.append(folder / f"{PREFIX}reproduction.md")
        if write:
            written.append(_write_part(write, config, stream_markdown(document, command, [])))
    _print(document, outcome, written, as_json)
    files = [str(path) for path in written]
    return {
        "run": str(config.folder),
        "ran": outcome.ran,
        "failed": outcome.failures,
        "document": document,
        "files": files,
    }


def run_study(config: RunConfig) -> StudyOutcome:
    """Prepare the stream, and run every trial that is not done; one that failed is tried again by the next start."""
    execute_run(config, "prepare")
    trials = list(study_trials(config, _prepared_digest(config)))
    run = config.folder.absolute()
    with holding(config.folder) as board:
        missing = {one.key: one for one in trials if not one.is_done(run)}
        failures = _run(config, missing, board) if missing else {}
    return StudyOutcome(trials, len(missing), {missing[key].title: reason for key, reason in failures.items()})


def _run(config: RunConfig, missing: Mapping[str, StreamTrial], board: Board) -> dict[str, str]:
    run, seconds = config.folder.absolute(), config.stream_section.checkpoint_seconds
    works = {key: StreamWork(trial, run, seconds) for key, trial in missing.items()}
    with _session(config):  # sets the environment that Ray reads when it is imported
        from pipelines.study.tuning import run_works
        from pipelines.study.watch import Watch

        watch = Watch(board, {key: trial.title for key, trial in missing.items()})
        return run_works(works, config.cluster, config.folder / STUDY_FOLDER / ".tune", watch)


@contextmanager
def _session(config: RunConfig) -> Iterator[None]:
    with ray_session(config.cluster), interruptible():  # Ray puts handlers of its own in place of ours
        yield


def _prepared_digest(config: RunConfig) -> str:
    stored = read_stored(config.folder / "prepare")
    if stored is None or stored.damage:
        raise StageError(f"{config.folder / 'prepare'}: not finished; run the same command again")
    return stored.digest


def _plan(config: RunConfig, as_json: bool) -> dict[str, Any]:
    decisions = plan_run(config, "prepare")
    waiting = [one.node for one in decisions if one.run]
    trials = list(study_trials(config, "" if waiting else _prepared_digest(config)))
    run = config.folder.absolute()
    listed = [{"name": one.title, "done": not waiting and one.is_done(run)} for one in trials]
    if not as_json:
        table = Table(title="Trials", title_justify="left")
        table.add_column("trial")
        table.add_column("")
        for one in listed:
            table.add_row(str(one["name"]), "done" if one["done"] else "to run")
        results().print(table)
        if waiting:
            results().print(f"first, in the run itself: {', '.join(waiting)}", highlight=False, markup=False)
        done = sum(bool(one["done"]) for one in listed)
        results().print(f"{len(listed)} trials: {done} done, {len(listed) - done} to run", highlight=False)
    return {"run": str(config.folder), "nodes": [vars(one) for one in decisions], "trials": listed}


def _document(config: RunConfig, outcome: StudyOutcome) -> dict[str, Any]:
    run = config.folder.absolute()
    found: dict[tuple[str, str], dict[int, Any]] = {}
    missing = {}
    for task in config.stream_section.study.tasks:
        for trial in (one for one in outcome.trials if one.model.task == task):
            if trial.is_done(run):
                found.setdefault((trial.name, task), {})[trial.seed] = read_finished(trial.folder(run))
            else:
                missing[trial.title] = outcome.failures.get(trial.title, "not run")
    return stream_document(config.name, found, missing, stream_facts(config))


def _write_part(file: Path, config: RunConfig, text: str) -> Path:
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, replace_part(before, f"{PREFIX}{config.name}", text, str(file)))
    return file


def _print(document: Mapping[str, Any], outcome: StudyOutcome, written: list[Path], as_json: bool) -> None:
    console = messages() if as_json else results()
    print_tables(document, console)
    if not outcome.ran:
        messages().print("nothing to run: every trial was done already", highlight=False)
    for title, reason in outcome.failures.items():
        messages().print(f"{title} failed: {reason}", style="red", highlight=False, markup=False, soft_wrap=True)
    listed = ", ".join(str(path) for path in written if path.suffix == ".md")
    console.print(f"written:  {listed}", highlight=False, markup=False, soft_wrap=True)
