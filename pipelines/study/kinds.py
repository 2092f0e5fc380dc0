"""The studies by name: which tables each has, what the run must have done before, and which trials it consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from components.errors import ConfigError, UnknownNameError
from pipelines.config import RunConfig
from pipelines.study import cprec, plan
from pipelines.study.plan import Entry

NEEDED: Final = {
    "sharing": "it needs a student whose layers can share weights, such as nextitnet, in study.cprec.students",
    "transfer": "it needs study.cprec.transfer, the run folder of a finished study on other items",
}


@dataclass(frozen=True)
class StudyKind:
    """One study.

    Attributes:
        name: of the paper's method.
        tables: names of its tables, in their order.
        stage: the run is brought up to it first.
        entries: the rows of the tables that are wanted; raises ConfigError where there is nothing to study.
        ranks_teachers: tables with rows of teachers.
        measured: tables for whose rows inference is measured.
    """

    name: str
    tables: tuple[str, ...]
    stage: str
    entries: Callable[[RunConfig, Sequence[str]], dict[str, list[Entry]]]
    ranks_teachers: frozenset[str] = frozenset()
    measured: frozenset[str] = frozenset()

    def chosen(self, names: Iterable[str]) -> tuple[str, ...]:
        """The tables called `names` in their usual order; all of them for none.

        Raises:
            UnknownNameError: a name is no table.
        """
        wanted = set(names)
        for name in sorted(wanted):
            if name not in self.tables:
                raise UnknownNameError("table of the study", name, self.tables)
        return tuple(name for name in self.tables if not wanted or name in wanted)

    def check(self, config: RunConfig, names: Iterable[str]) -> None:
        """Look for whatever the trials need that no stage makes.

        Raises:
            UserError: the configuration has nothing to study, a table is unknown or, named, has no rows; or students
                shall begin with what is not there.
        """
        entries, named = self.entries(config, self.chosen(names)), set(names)
        for table in sorted(named):
            if not entries[table]:
                raise ConfigError(f"table {table} has no rows: {NEEDED.get(table, 'its list in `study` is empty')}")
        plan.study_trials(config, entries, dict.fromkeys(("prepare", self.stage), ""))


PRM_KD: Final = StudyKind(
    "prm-kd",
    plan.TABLES,
    "annotate",
    plan.study_entries,
    ranks_teachers=frozenset({"main"}),
    measured=frozenset({"cost"}),
)
CPREC: Final = StudyKind(
    "cprec",
    cprec.TABLES,
    "prepare",
    cprec.cprec_entries,
    measured=frozenset(cprec.TABLES) - {"transfer"},  # what a student begins with changes no request
)
STUDIES: Final[Mapping[str, StudyKind]] = {kind.name: kind for kind in (PRM_KD, CPREC)}
