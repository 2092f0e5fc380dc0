"""`distilrec study`: what it needs as in an ordinary run, then the missing trials, then what inference costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import ConfigError, StageError
from components.schema import CONFIG_FILE
from pipelines.cache import Stored, read_stored
from pipelines.config import RunConfig
from pipelines.driver import execute_run, holding, plan_run
from pipelines.interrupt import interruptible
from pipelines.progress import Board
from pipelines.ray_session import ray_session
from pipelines.storage.place import is_remote
from pipelines.study.cost import Rounds, measured_rounds
from pipelines.study.kinds import PRM_KD, StudyKind
from pipelines.study.plan import Entry, Trial, study_trials, unique_trials
from pipelines.study.trials import STUDY_FOLDER, TeacherWork, TrialWork, is_done, teacher_ranks_file, trial_folder


@dataclass(frozen=True)
class Study:
    """A study whose inputs are there.

    Attributes:
        config: the run.
        tables: which tables are wanted, in order.
        entries: their rows.
        trials: the trials of every row, by table and name.
        teachers: what the run folder holds of each teacher that can rank, by name.
        digests: manifest digests of ``prepare`` and, where students are taught, ``annotate``.
        kind: which study.
    """

    config: RunConfig
    tables: tuple[str, ...]
    entries: Mapping[str, list[Entry]]
    trials: Mapping[tuple[str, str], list[Trial]]
    teachers: Mapping[str, Stored]
    digests: Mapping[str, str]
    kind: StudyKind

    @property
    def run(self) -> Path:
        """The run folder, absolute: workers have another current folder."""
        return self.config.folder.absolute()

    def ranks_file(self, teacher: str) -> Path:
        """Where a teacher's ranks lie."""
        digest = self.teachers[teacher].digest
        return teacher_ranks_file(self.run, teacher, digest, self.config.evaluate.ties, self.digests["prepare"])


@dataclass(frozen=True)
class Outcome:
    """What a start of a study did.

    Attributes:
        study: its plan.
        ran: names of what ran.
        failures: why pieces failed: by trial key, by ``teacher NAME``, by ``cost of NAME``.
        rounds: what inference costs, by name of the row or teacher.
    """

    study: Study
    ran: list[str]
    failures: dict[str, str] = field(default_factory=dict)
    rounds: Rounds = field(default_factory=dict)


def plan_study(config: RunConfig, only: Sequence[str] = (), kind: StudyKind = PRM_KD) -> dict[str, Any]:
    """What a start would do, without doing it: ``nodes`` of the run, and ``trials`` with whether they are done.

    Raises:
        UserError: the configuration has nothing to study, or a table is unknown.
    """
    tables = kind.chosen(only)
    kind.check(config, only)
    decisions = plan_run(config, kind.stage)
    waiting = [decision for decision in decisions if decision.run]
    study = None if waiting else make_study(config, tables, kind)
    if study is None:
        entries = kind.entries(config, tables)
        trials = study_trials(config, entries, dict.fromkeys(("prepare", kind.stage), ""))
    else:
        trials = dict(study.trials)
    return {
        "run": str(config.folder),
        "nodes": [vars(decision) for decision in decisions],
        "trials": [_planned(trial, trials, study) for trial in unique_trials(trials)],
        "teachers": _planned_teachers(config, kind, tables, study),
    }


def _planned(trial: Trial, trials: Mapping[tuple[str, str], Sequence[Trial]], study: Study | None) -> dict[str, Any]:
    setting = trial.setting
    return {
        "name": trial.name,
        "tables": list(dict.fromkeys(table for (table, _), row in trials.items() if trial in row)),
        "student": setting.kind,
        "distilled": setting.distillation is not None,
        "seed": trial.seed,
        "key": trial.key[:16] if study else None,  # before the inputs exist nothing has a key
        "done": bool(study and is_done(study.run, trial)),
    }


def _planned_teachers(
    config: RunConfig, kind: StudyKind, tables: Sequence[str], study: Study | None
) -> list[dict[str, Any]]:
    if not kind.ranks_teachers.intersection(tables):
        return []
    if study is None:
        return [{"name": name, "done": False} for name in config.teachers]
    return [{"name": name, "done": study.ranks_file(name).is_file()} for name in study.teachers]


def make_study(config: RunConfig, tables: tuple[str, ...], kind: StudyKind = PRM_KD) -> Study:
    """The plan of a study whose inputs are finished.

    Raises:
        StageError: they are not.
    """
    digests = {}
    for node in dict.fromkeys(("prepare", kind.stage)):
        stored = read_stored(config.folder / node)
        if stored is None or stored.damage:
            raise StageError(f"{config.folder / node}: not finished; run the same command again")
        digests[node] = stored.digest
    entries = kind.entries(config, tables)
    known = config.teachers if kind.ranks_teachers else ()
    teachers = {name: read_stored(config.folder / "teach" / name) for name in known}
    rankers = {
        name: stored
        for name, stored in teachers.items()
        if stored is not None and (config.folder / "teach" / name / CONFIG_FILE).is_file()
    }
    return Study(config, tables, entries, study_trials(config, entries, digests), rankers, digests, kind)


def run_study(config: RunConfig, only: Sequence[str] = (), kind: StudyKind = PRM_KD) -> Outcome:
    """Bring the run up to what the study needs, run the trials that are missing, and measure what inference costs.

    A finished trial is never run again; a killed one goes on from its checkpoint; one that failed stops no other and is
    run again by the next start.

    Raises:
        DistilrecError: the configuration has nothing to study, or the run itself failed.
    """
    if is_remote(config.output):
        raise ConfigError(
            f"output: {config.output}: a study works in files that all nodes see at once; set a shared folder"
        )
    tables = kind.chosen(only)
    kind.check(config, only)
    execute_run(config, kind.stage)
    study = make_study(config, tables, kind)
    with holding(config.folder) as board:
        missing = missing_works(study)
        failures = _run_works(study, missing, board) if missing else {}
        rounds, unmeasured = _measure(study, board) if kind.measured.intersection(tables) else ({}, {})
        unmeasured = {f"cost of {name}": reason for name, reason in unmeasured.items()}
        return Outcome(study, list(missing), failures | unmeasured, rounds)


def missing_works(study: Study) -> dict[str, tuple[str, TrialWork | TeacherWork]]:
    """(name for people, work) of every trial and every teacher's ranking that is not done, by key."""
    evaluate = study.config.evaluate
    works: dict[str, tuple[str, TrialWork | TeacherWork]] = {}
    for name in study.teachers if study.kind.ranks_teachers.intersection(study.tables) else ():
        file = study.ranks_file(name)
        if not file.is_file():
            works[f"teacher {name}"] = (f"rank {name}", TeacherWork(name, file, study.run, evaluate.ties))
    threads = max(1, int(study.config.cluster.cpus_per_worker))
    for trial in unique_trials(study.trials):
        if not is_done(study.run, trial):
            work = TrialWork(trial, study.run, evaluate.mask_history, evaluate.ties, threads)
            works[trial.key] = (trial.name, work)
    return works


def _run_works(study: Study, works: Mapping[str, tuple[str, TrialWork | TeacherWork]], board: Board) -> dict[str, str]:
    config = study.config
    with _session(config):  # sets the environment that Ray reads when it is imported
        from pipelines.study.tuning import run_works
        from pipelines.study.watch import Watch

        watch = Watch(board, {key: name for key, (name, _) in works.items()})
        folder = config.folder / STUDY_FOLDER / ".tune"
        return run_works({key: work for key, (_, work) in works.items()}, config.cluster, folder, watch)


@contextmanager
def _session(config: RunConfig) -> Iterator[None]:
    with ray_session(config.cluster), interruptible():  # Ray puts handlers of its own in place of ours
        yield


def _measure(study: Study, board: Board) -> tuple[Rounds, dict[str, str]]:
    models = {f"teacher {name}": (study.run / "teach" / name, stored.digest) for name, stored in study.teachers.items()}
    measured = {
        entry.name: study.trials[table, entry.name][0]
        for table in study.tables
        if table in study.kind.measured
        for entry in study.entries[table]
    }
    for name, trial in measured.items():
        stored = read_stored(trial_folder(study.run, trial))
        if stored is not None and not stored.damage:
            models[name] = (trial_folder(study.run, trial), stored.digest)
    progress = board.begin("study/cost", f"{len(models)} models")
    file = study.run / STUDY_FOLDER / f"{study.kind.name}-cost-rounds.json"
    rounds, failures = measured_rounds(models, study.run / "prepare", study.config.study.cost, file, progress)
    board.end("study/cost", f"{len(failures)} of {len(models)} failed" if failures else f"{len(models)} models")
    return rounds, failures
