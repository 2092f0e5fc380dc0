"""What finished trials left, as the rows of any study need it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from components.reports.study.rows import Model
from pipelines.config import DISTILLED, PLAIN
from pipelines.study.command import Outcome, Study
from pipelines.study.plan import Entry, unique_trials
from pipelines.study.trials import RANKS_FILE, Positions, is_done, read_ranks, trial_folder

NOT_RUN: Final = "not run"
Ranks = Mapping[str, Positions]  # by trial key


def trial_ranks(study: Study) -> Ranks:
    """The ranks of every finished trial, by its key."""
    trials = [trial for trial in unique_trials(study.trials) if is_done(study.run, trial)]
    return {trial.key: read_ranks(trial_folder(study.run, trial) / RANKS_FILE) for trial in trials}


def model_of(outcome: Outcome, table: str, entry: Entry, ranks: Ranks, protocol: str) -> Model:
    """The model of one row: where it ranks the test users' items, and why seeds are missing."""
    study = outcome.study
    positions, missing = {}, {}
    for trial in study.trials[table, entry.name]:
        if trial.key in ranks:
            positions[trial.seed] = ranks[trial.key][protocol]
        else:
            missing[trial.seed] = outcome.failures.get(trial.key, NOT_RUN)
    kind = "student" if table != "main" or entry.name in (PLAIN, DISTILLED) else "baseline"
    return Model(
        entry.name,
        "student" if kind == "student" else "baseline",
        paper_name(entry),
        positions,
        missing,
        entry.against,
        entry.group,
        entry.value,
    )


def paper_name(entry: Entry) -> str:
    """What the paper's tables call the model: PRM-KD is its SASRec after the teachers."""
    setting = entry.setting
    if setting.distillation is None:
        return setting.kind
    return DISTILLED if setting.kind == "sasrec" else f"{setting.kind} after teachers"
