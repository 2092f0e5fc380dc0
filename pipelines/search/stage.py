"""Stage ``search``: find the best small student under a budget."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from components.artifacts.format import file_hash, write_json
from components.data.prepared import PreparedSet
from components.errors import ConfigError
from components.reports.search import front_picture
from components.reports.svg import standalone
from components.schema import MODEL_FILE
from pipelines.cache import sealed_digest
from pipelines.footprints import catalog_of
from pipelines.search.candidates import Scale, setting_of
from pipelines.search.choice import choose_winner, fits, pareto_front
from pipelines.search.config import RESULT_FILE, WINNER, SearchConfig
from pipelines.search.proposals import Search
from pipelines.search.trial import ARTIFACT, Record, read_records, trial_folder
from pipelines.search.tuning import run_search
from pipelines.search.watch import SearchWatch
from pipelines.stages import EXTRA_MANIFEST_FILE, StageContext

TRIALS_FOLDER: Final = "search-trials"  # of the run; students of changed budgets and longer searches are found there
LOGS_FOLDER: Final = "logs/search"
PICTURE_FILE: Final = "front.svg"
SEARCH_FORMAT: Final = 1


def run(context: StageContext) -> None:
    """Search, and write what was found and the winner's artifact into the context's folder."""
    chosen = context.config.search
    assert chosen is not None  # the graph has no such node otherwise
    search = make_search(context, chosen)
    scale = Scale(catalog_of(PreparedSet(context.input("prepare")), context.config.student.kind))
    known = [record for record in read_records(search.trials) if _belongs(search, record)]
    over = sum(record.over for record in known)
    if over:
        context.progress.say(f"{over} of {len(known)} students that began earlier are over and train no more")
    logs = context.config.folder / LOGS_FOLDER
    shutil.rmtree(logs, ignore_errors=True)  # records are replayed into new ones
    watch = SearchWatch(context.progress, chosen.trials, search.trials, lambda record: _belongs(search, record), known)
    refused = run_search(search, scale, known, logs, watch)
    write_result(context, search, refused)


def make_search(context: StageContext, chosen: SearchConfig) -> Search:
    """What the stage works on."""
    config = context.config
    source = "annotate" if "annotate" in context.inputs else "prepare"
    prepared = context.input(source)
    trials = config.folder.absolute() / TRIALS_FOLDER / sealed_digest(prepared)[:12]
    trials.mkdir(parents=True, exist_ok=True)
    if config.start:  # workers have another current folder
        config = config.model_copy(update={"start": str(Path(config.start).absolute())})
    started = file_hash(Path(config.start) / MODEL_FILE) if config.start else ""
    return Search(config, chosen, trials, prepared, context.seed, chosen.whole_space(), started)


def write_result(context: StageContext, search: Search, refused: dict[str, int]) -> None:
    """Write ``search.json``, ``front.svg`` and ``winner/``.

    Raises:
        StageError: no student finished within the budgets.
    """
    records = [record for record in read_records(search.trials) if _belongs(search, record)]
    winner = choose_winner(records, search.search)
    front = pareto_front(records)
    setting = setting_of(search.config, winner.record.values)
    document = {
        "format": SEARCH_FORMAT,
        "mode": search.search.mode,
        "budget": {key: getattr(search.search, key) for key in ("max_parameters", "max_bytes", "max_latency_ms")},
        "refused": refused,
        "states": dict(Counter(record.state for record in records)),
        "winner": {
            "number": winner.record.number,
            "reason": winner.reason,
            "seed": search.seed,
            "student": {"kind": setting.kind, **setting.arguments},
            "training": setting.training.model_dump(mode="json"),
            "distillation": setting.distillation.model_dump(mode="json") if setting.distillation else None,
        },
        "front": [record.number for record in front],
        "students": [described(record, record in front, fits(record, search.search)) for record in records],
    }
    write_json(context.folder / RESULT_FILE, document)
    if picture := front_picture(document):
        (context.folder / PICTURE_FILE).write_text(standalone(picture), encoding="utf-8")
    shutil.copytree(trial_folder(search.trials, winner.record.key) / ARTIFACT, context.folder / WINNER)
    write_json(context.folder / EXTRA_MANIFEST_FILE, {"search": {"winner": winner.reason, "refused": refused}})


def _belongs(search: Search, record: Record) -> bool:
    """Whether a student is one of this search: of its space, its seed and its budget."""
    if record.values.keys() != search.space.keys() or record.weight.excess(search.search) > 0:
        return False
    try:
        key, _, _ = search.proposal({key: search.space[key].drawn(value) for key, value in record.values.items()})
    except (ConfigError, ValueError):
        return False
    return key == record.key


def described(record: Record, on_front: bool, within: bool) -> dict[str, Any]:
    """A student as ``search.json`` lists it."""
    content = asdict(record)
    weight = content.pop("weight")
    epochs = content.pop("epochs")
    return {**content, **weight, "epochs": len(epochs), "best": record.best, "front": on_front, "fits": within}
