"""From finished trials to the documents of the study of PRM-KD; a missing trial is shown as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.artifacts.format import read_json
from components.data.prepared import PreparedSet
from components.reports.study.paper import PAPER_NAMES
from components.reports.study.rows import Cost, Model, compare, compare_costs
from components.teachers.external import EXTERNAL
from pipelines.config import PLAIN
from pipelines.executor import timing_file
from pipelines.study.command import Outcome
from pipelines.study.finished import NOT_RUN, Ranks, model_of, paper_name, trial_ranks
from pipelines.study.plan import Entry, own_setting, study_seeds
from pipelines.study.trials import LEFT_OUT, PROTOCOLS, RANKED_TOO, read_ranks, trial_timing_file

Document = dict[str, Any]


def study_documents(outcome: Outcome) -> list[Document]:
    """One document per table, from what the run folder holds."""
    study, config = outcome.study, outcome.study.config
    users = len(PreparedSet(study.run / "prepare").sequences.cases("test"))
    common = {"dataset": config.name, "paper": config.study.paper, "users": users, "seeds": study_seeds(config)}
    documents, ranks = [], trial_ranks(study)
    for table in study.tables:
        sections = {"": _cost_rows(outcome, ranks)} if table == "cost" else _quality_sections(outcome, table, ranks)
        documents.append({"table": table, **common, "sections": sections})
    return documents


def _quality_sections(outcome: Outcome, table: str, ranks: Ranks) -> dict[str, list[dict[str, Any]]]:
    """Rows by section: both protocols for the main table, the varied parameter for sweeps."""
    study = outcome.study
    chosen = LEFT_OUT if study.config.evaluate.mask_history else RANKED_TOO
    protocols = [chosen, *(name for name in PROTOCOLS if name != chosen)] if table == "main" else [chosen]
    sections = {}
    for protocol in protocols:
        models = [model_of(outcome, table, entry, ranks, protocol) for entry in study.entries[table]]
        if table == "main":
            models += _teacher_models(outcome, protocol)
        sections[protocol] = compare(models)
    if table != "sweeps":
        return sections
    rows = sections[chosen]
    groups = dict.fromkeys(row["group"] for row in rows if row["group"])
    fixed = [row for row in rows if not row["group"]]
    return {
        group: [*(fixed if group != "dim" else []), *(row for row in rows if row["group"] == group)] for group in groups
    }


def _teacher_models(outcome: Outcome, protocol: str) -> list[Model]:
    study = outcome.study
    models = []
    for name, teacher in study.config.teachers.items():
        positions, missing = {}, {}
        seed = study.config.seeds[0] if teacher.seed is None else teacher.seed
        if name in study.teachers and study.ranks_file(name).is_file():
            positions[seed] = read_ranks(study.ranks_file(name))[protocol]
        else:
            known = outcome.failures.get(f"teacher {name}", NOT_RUN)
            missing[seed] = known if name in study.teachers else _why_unranked(outcome, name)
        models.append(Model(name, "teacher", teacher.kind, positions, missing, PLAIN))
    return models


def _cost_rows(outcome: Outcome, ranks: Ranks) -> list[dict[str, Any]]:
    study = outcome.study
    costs = [_student_cost(outcome, entry, ranks) for entry in study.entries["cost"]]
    costs += [_teacher_cost(outcome, name, teacher.kind) for name, teacher in study.config.teachers.items()]
    return compare_costs(costs, PLAIN)


def _student_cost(outcome: Outcome, entry: Entry, ranks: Ranks) -> Cost:
    study, trial = outcome.study, outcome.study.trials["cost", entry.name][0]
    if trial.key not in ranks:
        return Cost(entry.name, "student", paper_name(entry), {}, [], outcome.failures.get(trial.key, NOT_RUN))
    return Cost(
        entry.name,
        "student",
        paper_name(entry),
        _json_or_empty(trial_timing_file(study.run, trial)),
        outcome.rounds.get(entry.name, []),
        outcome.failures.get(f"cost of {entry.name}", ""),
    )


def _teacher_cost(outcome: Outcome, name: str, kind: str) -> Cost:
    study, label = outcome.study, f"teacher {name}"
    timing = _json_or_empty(timing_file(study.run, f"teach/{name}"))
    if name not in study.teachers:
        return Cost(name, "teacher", kind, timing, [], _why_unranked(outcome, name))
    rounds, reason = outcome.rounds.get(label, []), outcome.failures.get(f"cost of {label}", "")
    return Cost(name, "teacher", kind, timing, rounds, reason)


def _why_unranked(outcome: Outcome, name: str) -> str:
    """Why there is no model of a teacher."""
    if outcome.study.config.teachers[name].kind == EXTERNAL:
        return "two arrays, no model that could rank new histories"
    return "not trained, as distillation.teachers does not name it"


def _json_or_empty(file: Path) -> dict[str, Any]:
    return json.loads(file.read_bytes()) if file.is_file() else {}


def study_facts(outcome: Outcome, command: str) -> dict[str, Any]:
    """What `components.reports.study.markdown.differences` compares with the paper."""
    config, own = outcome.study.config, own_setting(outcome.study.config)
    manifest = read_json(outcome.study.run / "prepare" / "manifest.json")
    data = PreparedSet(outcome.study.run / "prepare")
    assert config.distillation is not None  # a study without it was refused
    return {
        "dataset": config.name,
        "command": command,
        "seeds": study_seeds(config),
        "paper": config.study.paper,
        "users": manifest.get("users", len(data.sequences)),
        "items": data.num_items,
        "interactions": manifest.get("interactions", len(data.sequences.items)),
        "student": PAPER_NAMES.get(own.kind, own.kind),
        "dim": own.arguments.get("dim"),
        "training": config.training.model_dump(mode="json"),
        "distillation": config.distillation.model_dump(mode="json"),
        "teachers": {
            name: {"kind": teacher.kind, "arguments": teacher.arguments, "pretrained": bool(teacher.pretrained)}
            for name, teacher in config.teachers.items()
        },
        "encoder": config.features.model if config.features else None,
        "mask_history": config.evaluate.mask_history,
    }
