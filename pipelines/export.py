"""Stage ``export``: the winner becomes the artifact that serves."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from components.artifacts.format import read_json, write_json
from components.artifacts.models import load_model, read_model_config
from components.artifacts.opinions import OPINIONS
from components.data.item_attributes import attribute_values, choose_attributes
from components.data.prepared import PreparedSet
from components.errors import StageError, StorageError, UnknownNameError
from components.golden import write_golden
from components.recommender import HISTORIES_FILE
from components.schema import (
    ATTRIBUTES_FILE,
    CONFIG_FILE,
    COUNT,
    ITEM,
    ITEM_ID,
    ITEMS,
    ITEMS_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    MODEL_FILE,
    TEXT,
    TITLE,
    USER,
    USER_ID,
)
from pipelines.export_pictures import write_pictures
from pipelines.new_items import write_projections
from pipelines.search.config import SEARCHED
from pipelines.stages import EXTRA_MANIFEST_FILE, SEED_MARK
from pipelines.teacher_opinions import ANNOTATE, write_teacher_items

if TYPE_CHECKING:
    from pipelines.stages import StageContext

AUTO: Final[Literal["auto"]] = "auto"
METRIC: Final = "valid_ndcg@10"
DISTILL: Final = "distill/"
SHOWN: Final = (ITEM, ITEM_ID, TITLE, TEXT, COUNT)  # columns of the catalogue that an endpoint needs


class ExportConfig(BaseModel):
    """What to export.

    Attributes:
        model: name of a student of the run, or ``"auto"``: the search's winner where there is a search (the others need
            not keep its budgets), else the best validation NDCG@10, baselines aside.
        seed: which seed's model; by default the one with the best validation NDCG@10.
        histories: put the users' histories into the artifact, so that the endpoint answers a `user_id`. Off by default:
            whoever holds such an artifact can read who did what.
        new_items: where a teacher reads texts or pictures, learn how its item vectors become rows of the student, so
            that `distilrec add-items` can bring in items without training.
        pictures: put thumbnails of the items into the artifact, for the endpoint's page; ``"auto"`` does where the run
            reads pictures.
        opinions: put the teachers' item vectors into the artifact, so that the page can tell which teacher liked what.
        attributes: columns of the item table that answers can be filtered by, and what separates several values in one
            (``""``: nothing does). By default every column of names that is no prose, see
            `components.data.item_attributes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = AUTO
    seed: int | None = Field(default=None, ge=0)
    histories: bool = False
    new_items: bool = True
    pictures: bool | Literal["auto"] = AUTO
    opinions: bool = True
    attributes: dict[str, str] | None = None


@dataclass(frozen=True)
class Candidate:
    """One trained model of the run: the node that trained it, what it is, and how it validated."""

    node: str
    variant: str
    seed: int
    family: str
    metric: float


@dataclass(frozen=True)
class Choice:
    """The winner and why it won."""

    winner: Candidate
    reason: str


def choose(candidates: Sequence[Candidate], model: str = AUTO, seed: int | None = None) -> Choice:
    """Choose what to export; a pure function.

    With ``"auto"`` the variant whose mean over seeds is best wins, not the luckiest single seed; baselines compete only
    where there is nothing else. Of its seeds the best is exported. Ties go to the first name and the lowest seed.

    Raises:
        StageError: there is no candidate.
        UnknownNameError: no candidate has this name or seed.
    """
    if not candidates:
        raise StageError("nothing to export: the run trained no student; add `student` or `baselines` to the config")
    if model == AUTO and any(one.variant == SEARCHED for one in candidates):
        return choose([one for one in candidates if one.variant == SEARCHED], SEARCHED, seed)
    pool = [one for one in candidates if one.family != "baseline"] or list(candidates)
    means = {name: fmean(one.metric for one in pool if one.variant == name) for name in _names(pool)}
    if model == AUTO:
        name = min(means, key=lambda variant: (-means[variant], variant))
        reason = f"best mean {METRIC} ({means[name]:.4f}) of {len(means)}: {', '.join(sorted(means))}"
    elif model in _names(candidates):
        name, reason = model, "the search's winner" if model == SEARCHED else f"export.model names {model}"
    else:
        raise UnknownNameError("model of this run", model, [AUTO, *_names(candidates)])
    seeds = {one.seed: one for one in candidates if one.variant == name}
    if seed is not None and seed not in seeds:
        raise UnknownNameError(f"seed of {name}", str(seed), map(str, seeds))
    winner = seeds[seed] if seed is not None else min(seeds.values(), key=lambda one: (-one.metric, one.seed))
    chosen = "export.seed" if seed is not None else f"best of {len(seeds)} seeds"
    return Choice(winner, f"{reason}; seed {winner.seed} ({chosen}): {winner.metric:.4f}")


def _names(candidates: Iterable[Candidate]) -> list[str]:
    return sorted({one.variant for one in candidates})


def find_candidates(inputs: dict[str, Path]) -> list[Candidate]:
    """Every ``distill`` node among the inputs.

    Raises:
        StageError: a model has no validation metric.
    """
    found = []
    for node, folder in sorted(inputs.items()):
        if not node.startswith(DISTILL):
            continue
        variant, _, seed = node.removeprefix(DISTILL).partition(SEED_MARK)
        metric = read_json(folder / METRICS_FILE).get(METRIC)
        if not isinstance(metric, int | float):
            raise StageError(f"{folder / METRICS_FILE}: has no {METRIC!r}; run `distilrec distill` again")
        found.append(Candidate(node, variant, int(seed or 0), read_model_config(folder).family, float(metric)))
    return found


def run(context: StageContext) -> None:
    """Write the artifact that serves into the context's folder."""
    config: ExportConfig = context.config.export
    context.progress.start(4, "steps")
    choice = choose(find_candidates(context.inputs), config.model, config.seed)
    context.progress.note(f"export {choice.winner.variant}, seed {choice.winner.seed}")
    source = context.input(choice.winner.node)
    model = load_model(source)  # what cannot be loaded must not be exported
    context.progress.advance()
    prepared = PreparedSet(context.input("prepare"))
    try:
        for name in (CONFIG_FILE, MODEL_FILE):
            shutil.copyfile(source / name, context.folder / name)
        write_items(prepared, context.folder)
        write_golden(model, context.folder)
        if config.histories:
            write_histories(prepared, context.folder)
        context.progress.advance()
        write_json(context.folder / METRICS_FILE, {**read_json(source / METRICS_FILE), **_tested(context, choice)})
        fields = _provenance(context, choice, prepared)
        fields["attributes"] = write_attributes(prepared, context.folder, config.attributes)
        if config.new_items:
            fields["new_items"] = write_projections(
                model, fields["model"]["kind"], context.inputs, prepared, context.folder, context.progress
            )
        fields |= _exhibits(context, config, prepared)
        context.progress.advance()
        write_json(context.folder / EXTRA_MANIFEST_FILE, fields)
    except OSError as error:
        raise StorageError(
            f"{context.folder}: cannot write the artifact ({error}); free space and run again"
        ) from error
    context.progress.advance()


def write_items(prepared: PreparedSet, folder: Path) -> None:
    """The catalogue in the order of item numbers, with the columns that an endpoint shows."""
    items = prepared.items
    items.select([name for name in SHOWN if name in items.columns]).write_parquet(folder / ITEMS_FILE)


def write_attributes(prepared: PreparedSet, folder: Path, wanted: dict[str, str] | None) -> dict[str, str]:
    """What the catalogue can be filtered by; no file where that is nothing.

    Returns:
        The separator of every attribute, for items that come later.

    Raises:
        UserError: a wanted attribute is no column of the item table, or has no values.
    """
    separators = choose_attributes(prepared.items, wanted)
    if separators:
        attribute_values(prepared.items, separators).write_parquet(folder / ATTRIBUTES_FILE)
    return separators


def write_histories(prepared: PreparedSet, folder: Path) -> None:
    """Every user's whole sequence, so that the endpoint can answer a user id."""
    tables = [pl.read_parquet(file, columns=[USER_ID, USER, ITEMS]) for file in prepared.sequence_files]
    pl.concat(tables).write_parquet(folder / HISTORIES_FILE)


def _exhibits(context: StageContext, config: ExportConfig, prepared: PreparedSet) -> dict[str, Any]:
    """Write what only people look at; for the manifest, what was written or why not."""
    fields: dict[str, Any] = {}
    if config.pictures:
        context.progress.note("pictures")
        fields["pictures"] = write_pictures(prepared.path, context.folder, required=config.pictures is True)
    if config.opinions:
        fields[OPINIONS] = write_teacher_items(context.inputs.get(ANNOTATE), context.folder)
    return fields


def _tested(context: StageContext, choice: Choice) -> dict[str, Any]:
    """The winner's row of the leaderboard, under ``test``; empty where evaluation did not see it."""
    if "evaluate" not in context.inputs:
        return {}
    rows = read_json(context.inputs["evaluate"] / "leaderboard.json").get("rows", [])
    row = next((row for row in rows if row.get("name") == choice.winner.variant), None)
    return {} if row is None else {"test": row}


def _provenance(context: StageContext, choice: Choice, prepared: PreparedSet) -> dict[str, Any]:
    def parent(folder: Path) -> str:
        return hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()

    config = read_model_config(context.folder)
    return {
        "model": {
            "name": choice.winner.variant,
            "seed": choice.winner.seed,
            "kind": config.kind,
            "family": config.family,
            METRIC: choice.winner.metric,
        },
        "reason": choice.reason,
        "run": context.config.name,
        "parents": {node: parent(folder) for node, folder in sorted(context.inputs.items())},
        "data_fingerprint": parent(prepared.path),
    }
