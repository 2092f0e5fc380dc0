"""From finished trials to the documents of the study of CpRec: quality, size, time to the best epoch, of a request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from components.artifacts.format import read_json
from components.compression.config import CompressionConfig
from components.data.prepared import PreparedSet
from components.reports.study.cprec import METRICS
from components.reports.study.rows import compare
from components.schema import METRICS_FILE
from pipelines.config import RunConfig
from pipelines.footprints import catalog_of, measure_student
from pipelines.study.command import Outcome
from pipelines.study.finished import Ranks, model_of, trial_ranks
from pipelines.study.plan import Entry, Trial, student_setting, study_seeds
from pipelines.study.trials import LEFT_OUT, RANKED_TOO, trial_folder, trial_timing_file

SECONDS: Final = "train_seconds_per_epoch"


def cprec_documents(outcome: Outcome) -> list[dict[str, Any]]:
    """One document per table, from what the run folder holds."""
    study, config = outcome.study, outcome.study.config
    prepared = PreparedSet(study.run / "prepare")
    users = len(prepared.sequences.cases("test"))
    ranks, catalog = trial_ranks(study), catalog_of(prepared)
    documents = []
    for table in (table for table in study.tables if study.entries[table]):
        rows = _rows(outcome, table, ranks)
        sizes = {}
        for entry in study.entries[table]:
            sizes[entry.name] = measure_student(catalog, entry.setting.kind, dict(entry.setting.arguments))[0]["total"]
        for row, entry in zip(rows, study.entries[table], strict=True):
            base = entry.against
            row["parameters"] = sizes[entry.name]
            row["smaller"] = sizes[base] / sizes[entry.name] if base and table != "transfer" else None
        common = {
            "dataset": config.name,
            "paper": config.study.cprec.paper,
            "users": users,
            "seeds": study_seeds(config),
        }
        documents.append({"study": study.kind.name, "table": table, **common, "rows": rows})
    return documents


def _rows(outcome: Outcome, table: str, ranks: Ranks) -> list[dict[str, Any]]:
    study = outcome.study
    protocol = LEFT_OUT if study.config.evaluate.mask_history else RANKED_TOO
    entries = study.entries[table]
    rows = compare([model_of(outcome, table, entry, ranks, protocol) for entry in entries], METRICS)
    for row, entry in zip(rows, entries, strict=True):
        row["minutes"] = _minutes_to_best(study.run, study.trials[table, entry.name], ranks)
        row["latency_ms"], row["faster"] = _latency(outcome, entry)
    return rows


def _minutes_to_best(run: Path, trials: list[Trial], ranks: Ranks) -> float | None:
    """Mean over seeds of the training time up to the best epoch."""
    found = []
    for trial in trials:
        timing = trial_timing_file(run, trial)
        if trial.key in ranks and timing.is_file() and (seconds := read_json(timing).get(SECONDS)):
            found.append(seconds * read_json(trial_folder(run, trial) / METRICS_FILE)["best_epoch"] / 60)
    return fmean(found) if found else None


def _latency(outcome: Outcome, entry: Entry) -> tuple[float | None, float | None]:
    """Median time of a request in ms, and how many times as fast as the row it is compared with, round by round."""
    own = outcome.rounds.get(entry.name, [])
    base = outcome.rounds.get(entry.against or "", [])
    if not own:
        return None, None
    pairs = list(zip(own, base, strict=False))
    faster = median(theirs["latency_ms"] / ours["latency_ms"] for ours, theirs in pairs) if pairs else None
    return median(found["latency_ms"] for found in own), faster


def cprec_facts(outcome: Outcome, command: str) -> dict[str, Any]:
    """What `components.reports.study.cprec.cprec_markdown` says of the study as a whole."""
    config = outcome.study.config
    prepared = PreparedSet(outcome.study.run / "prepare")
    return {
        "dataset": config.name,
        "command": command,
        "seeds": study_seeds(config),
        "users": len(prepared.sequences),
        "items": prepared.num_items,
        "interactions": len(prepared.sequences.items),
        "training": config.training.model_dump(mode="json"),
        "blocks": _blocks(config, prepared),
        "split": config.prepare.split,
        "chunk_length": config.prepare.chunk_length,
        "shares": [config.prepare.valid_fraction, config.prepare.test_fraction],
        "transfer": Path(config.study.cprec.transfer or "").name if outcome.study.entries.get("transfer") else "",
    }


def _blocks(config: RunConfig, prepared: PreparedSet) -> Mapping[str, str]:
    found = {}
    for name, student in config.study.cprec.students.items():
        chosen = CompressionConfig.model_validate(config.study.cprec.blocks)
        blocks = chosen.blocks(prepared.counts[1:], student_setting(config, student).arguments["dim"])
        pairs = zip(blocks.ends, blocks.ranks, strict=True)
        found[name] = ", ".join(f"{end:,} ({rank})" for end, rank in pairs)
    return found
