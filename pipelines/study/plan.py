"""Which trials a study consists of: pure functions of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from components.distillation.config import DistillationConfig
from components.errors import ConfigError
from components.students import STUDENTS
from components.training.config import TrainingConfig
from pipelines.cache import node_key
from pipelines.config import COUNTING, DISTILLED, PLAIN, RunConfig
from pipelines.graph import HOW, Node
from pipelines.model_choice import ModelChoice
from pipelines.stages import STAGES
from pipelines.study.config import StudentConfig
from pipelines.study.starts import find_start

TABLES: Final = ("main", "cost", "teachers", "students", "sweeps")
SHARED_ARGUMENTS: Final = ("dim", "max_length")  # of the run's student, for students of other kinds
TAUGHT: Final = " + prm-kd"  # behind a student's name: after the teachers


@dataclass(frozen=True)
class Setting:
    """A student and how it learns; with a seed it is a trial.

    Attributes:
        kind: name in STUDENTS.
        arguments: all arguments of the kind, as JSON values.
        training: how it is trained.
        distillation: how it is distilled; None trains it alone.
        source: run folder of a finished study; the student begins with that of the same shape there.
    """

    kind: str
    arguments: Mapping[str, Any]
    training: TrainingConfig
    distillation: DistillationConfig | None = None
    source: Path | None = None

    @property
    def counts(self) -> bool:
        """Whether the student only counts: no seed changes it."""
        return self.kind in COUNTING


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
        name: unique within its table.
        setting: what is trained.
        against: the row that it is compared with.
        group: the part of the table that it stands in: a sweep's parameter.
        value: the parameter's value.
    """

    name: str
    setting: Setting
    against: str | None = None
    group: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Trial:
    """One training: a setting with a seed.

    Attributes:
        name: for people.
        setting: what is trained.
        seed: with which seed.
        part: the part of the configuration that decides what it writes, as JSON values.
        inputs: manifest digest of the set that it reads, by node name; and of what it begins with, as ``start``.
        start: artifact that it begins with, absolute.
    """

    name: str
    setting: Setting
    seed: int
    part: Mapping[str, Any]
    inputs: Mapping[str, str]
    start: Path | None = None

    @cached_property
    def key(self) -> str:
        """sha256 of all that decides what the trial writes."""
        return node_key(Node("distill", "", tuple(self.inputs), self.part, self.seed), self.inputs)

    @property
    def node(self) -> Node:
        """The trial as the cache of the run knows nodes."""
        return Node("distill", f"study/{self.key[:16]}", tuple(self.inputs), self.part, self.seed)


def require_teachers(config: RunConfig) -> DistillationConfig:
    """The run's distillation.

    Raises:
        ConfigError: the configuration has no teachers or no distillation.
    """
    missing = [name for name in ("teachers", "distillation") if not getattr(config, name)]
    if config.distillation is None or missing:
        listed = " and ".join(f"`{name}`" for name in missing)
        raise ConfigError(
            f"a study of PRM-KD compares distilled students: the configuration of {config.name} lacks {listed}; add "
            "teachers and a section distillation (configs/scientific-teachers.yaml has both)"
        )
    return config.distillation


def study_entries(config: RunConfig, tables: Sequence[str] = TABLES) -> dict[str, list[Entry]]:
    """The rows of each table, those that are compared with after nothing else: the plain student comes first.

    Raises:
        ConfigError: the configuration has no teachers or no distillation.
    """
    makers = {"main": _main, "cost": _cost, "teachers": _teachers, "students": _students, "sweeps": _sweeps}
    require_teachers(config)
    return {table: makers[table](config) for table in tables}


def _main(config: RunConfig) -> list[Entry]:
    alone = own_setting(config)
    entries = [Entry(PLAIN, alone), Entry(DISTILLED, taught(config, alone), PLAIN)]
    for name in dict.fromkeys(config.study.baselines):
        student = config.study.students.get(name) or StudentConfig(kind=name)
        entries.append(Entry(name, student_setting(config, student), PLAIN))
    return entries


def _cost(config: RunConfig) -> list[Entry]:
    alone = own_setting(config)
    pairs = [entry for entry in _students(config) if entry.setting.kind != alone.kind]
    return [Entry(PLAIN, alone), Entry(DISTILLED, taught(config, alone), PLAIN), *pairs]


def _teachers(config: RunConfig) -> list[Entry]:
    base = require_teachers(config)
    names = list(config.teachers) if base.teachers is None else base.teachers
    variants: dict[str, dict[str, Any]] = {"all teachers": {}}
    if len(names) > 1:
        variants |= {f"only {name}": {"teachers": [name]} for name in names}
    variants |= {"in-batch items": {"candidates": "batch"}, "all items": {"candidates": "all"}}
    variants |= {"consistency weights": {"weights": "consistency"}, "average weights": {"weights": "average"}}
    alone = own_setting(config)
    rows = [Entry(name, taught(config, alone, changes), "all teachers") for name, changes in variants.items()]
    return [Entry(PLAIN, alone), replace(rows[0], against=PLAIN), *rows[1:]]


def _students(config: RunConfig) -> list[Entry]:
    entries = []
    for name, student in config.study.students.items():
        if student.distilled:
            alone = student_setting(config, student)
            entries += [Entry(name, alone), Entry(name + TAUGHT, taught(config, alone, student.distillation), name)]
    return entries


def _sweeps(config: RunConfig) -> list[Entry]:
    alone, sweeps = own_setting(config), config.study.sweeps
    entries = [Entry(PLAIN, alone)]
    for value in dict.fromkeys(sweeps.temperature):
        changed = taught(config, alone, {"temperature": value, "temperatures": {}})
        entries.append(Entry(f"temperature {value:g}", changed, PLAIN, "temperature", value))
    for value in dict.fromkeys(sweeps.weight):
        entries.append(Entry(f"weight {value:g}", taught(config, alone, {"weight": value}), PLAIN, "weight", value))
    for width in dict.fromkeys(sweeps.dim):
        narrow = replace(alone, arguments={**alone.arguments, "dim": width})
        entries.append(Entry(f"dim {width}", narrow, None, "dim", width))
        entries.append(Entry(f"dim {width}{TAUGHT}", taught(config, narrow), f"dim {width}", "dim", width))
    return entries


def own_setting(config: RunConfig) -> Setting:
    """The run's own student, alone."""
    return Setting(config.student.kind, _own_arguments(config), config.training)


def student_setting(config: RunConfig, student: StudentConfig) -> Setting:
    """A student of the study, alone; see `StudentConfig` for what it takes from the run."""
    own, model = _own_arguments(config), STUDENTS[student.kind].config
    if student.kind == config.student.kind:
        shared = own
    else:
        shared = {key: own[key] for key in SHARED_ARGUMENTS if key in own and key in model.model_fields}
    arguments = model.model_validate({**shared, **student.arguments}).model_dump(mode="json")
    training = TrainingConfig.model_validate({**config.training.model_dump(), **student.training})
    return Setting(student.kind, arguments, training)


def taught(config: RunConfig, alone: Setting, changes: Mapping[str, Any] | None = None) -> Setting:
    """The same student after the teachers, as the section `distillation` says but for `changes`."""
    base = require_teachers(config).model_dump()
    return replace(alone, distillation=DistillationConfig.model_validate({**base, **(changes or {})}))


def _own_arguments(config: RunConfig) -> dict[str, Any]:
    choice: ModelChoice = config.student
    return STUDENTS[choice.kind].config.model_validate(choice.arguments).model_dump(mode="json")


def study_seeds(config: RunConfig) -> list[int]:
    """The seeds of every trial that is not only counted."""
    return config.study.seeds or config.seeds


def entry_seeds(config: RunConfig, table: str, entry: Entry) -> list[int]:
    """The seeds of a row; of the cost of a model one seed tells as much as many."""
    seeds = (config.study.sweeps.seeds if table == "sweeps" else None) or study_seeds(config)
    return seeds[:1] if table == "cost" or entry.setting.counts else seeds


def trial_part(config: RunConfig, setting: Setting) -> dict[str, Any]:
    """The part of the configuration that decides what a trial writes; how validation and test rank matters, too."""
    return {
        "student": {"kind": setting.kind, **setting.arguments},
        "training": _training_part(setting),
        "distillation": setting.distillation.model_dump(mode="json") if setting.distillation else None,
        "mask_history": config.evaluate.mask_history,
        "ranking": {"ties": config.evaluate.ties, "code_version": STAGES["evaluate"].code_version},
    }


def _training_part(setting: Setting) -> dict[str, Any]:
    if setting.counts:
        return {"validation_users": setting.training.validation_users}
    return setting.training.model_dump(mode="json", exclude=HOW["training"])


def study_trials(
    config: RunConfig, entries: Mapping[str, Sequence[Entry]], digests: Mapping[str, str]
) -> dict[tuple[str, str], list[Trial]]:
    """The trials of every row, by table and name; a trial that several rows share is the same object.

    Args:
        config: the run.
        entries: see `study_entries`.
        digests: manifest digests of ``prepare`` and ``annotate``.

    Raises:
        ConfigError: a study that students shall begin with has none of their shape.
    """
    known: dict[str, Trial] = {}
    found = {}
    for table, rows in entries.items():
        for entry in rows:
            source = "annotate" if entry.setting.distillation else "prepare"
            inputs = {source: digests[source]}
            trials = []
            for seed in entry_seeds(config, table, entry):
                part = trial_part(config, entry.setting)
                trial = Trial(f"{entry.name}, seed {seed}", entry.setting, seed, part, inputs)
                if entry.setting.source is not None:
                    start = find_start(entry.setting.source, part["student"], seed)
                    trial = replace(trial, inputs={**inputs, "start": start.digest}, start=start.folder)
                trials.append(known.setdefault(trial.key, trial))
            found[table, entry.name] = trials
    return found


def unique_trials(trials: Mapping[tuple[str, str], Sequence[Trial]]) -> list[Trial]:
    """Every trial once, in the order of the tables."""
    return list({trial.key: trial for row in trials.values() for trial in row}.values())
