"""Items that training never saw: does the student rank them as well as the text teacher that lent it their vectors?

    python -m benchmarks.new_items configs/scientific.yaml --seeds 0 1 2 --json FILE

For every seed a tenth of the items is held out: all their interactions leave the log before it is prepared, their texts
stay aside. An ordinary run trains teachers and student, ``distilrec add-items`` brings the held-out items in, and every
interaction with one of them is a test case: the history is what the user took before it and training knows. Ranked are
all items, and the held-out ones alone; equal scores count half. Beside the student stand

- popularity of the training part: new items have none, so that they tie behind all others, in random order;
- random rows: vectors of the norm of the projected ones in any direction, with the same bias;
- every teacher that can read a new item: its own vectors for old and new items, its own states.

A user's value is the mean over its cases of all seeds; the paired t-test is over users.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import polars as pl
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.teachers import distilrec
from components.artifacts.models import load_model
from components.data.batching import Batch, history_batch
from components.data.prepared import PreparedSet
from components.data.readers import InputConfig
from components.evaluation.metrics import recall
from components.evaluation.significance import paired_test
from components.item_maker import read_projections
from components.model import Ranker, ReadsContent
from components.schema import COUNT, IMAGE, ITEM, ITEM_ID, ITEMS_FILE, MANIFEST_FILE, POSITION, USER_ID
from pipelines.load_config import load_config
from pipelines.new_item_features import catalog_of
from pipelines.new_item_table import ItemColumns, read_new_items
from pipelines.prepare import prepare, write_standalone_manifest
from pipelines.served import find_artifact

CUTOFF: Final = 20
NEW_FILE: Final = "new.parquet"
STUDENT: Final = "student"
ROWS: Final = 256  # cases that are ranked together

FloatArray = NDArray[np.float64]
Scores = Callable[[Batch], Tensor]  # a batch -> (B, N + M) scores


@dataclass(frozen=True)
class Case:
    """One interaction with a held-out item."""

    user_id: str
    history: tuple[str, ...]
    target: str


class Quiet:
    """A progress that nobody reads."""

    def start(self, total: int | None, unit: str, done: int = 0) -> None: ...

    def advance(self, n: int = 1, **shown: float | str) -> None: ...

    def note(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...


def held_out(item_ids: Sequence[str], share: float, seed: int) -> set[str]:
    """A random `share` of the items."""
    size = max(1, round(share * len(item_ids)))
    return set(np.random.default_rng(seed).choice(np.sort(np.array(item_ids)), size, replace=False).tolist())


def make_cases(sequences: Sequence[tuple[str, Sequence[str]]], new: set[str], known: set[str]) -> list[Case]:
    """Every interaction with an item of `new` after at least one with a known one; histories are of known items."""
    cases = []
    for user_id, items in sequences:
        for place, target in enumerate(items):
            history = tuple(item for item in items[:place] if item in known)
            if target in new and history:
                cases.append(Case(user_id, history, target))
    return cases


def read_sequences(prepared: PreparedSet) -> list[tuple[str, list[str]]]:
    """(user id, item ids in time order) of every user."""
    sequences, ids = prepared.sequences, prepared.item_ids
    flat = [ids[number - 1] for number in sequences.items]
    borders = sequences.offsets
    return [
        (user_id, flat[begin:end])
        for user_id, begin, end in zip(prepared.user_ids, borders[:-1], borders[1:], strict=True)
    ]


def write_split(prepared: PreparedSet, new: set[str], folder: Path) -> None:
    """The log without the items `new`, the table of the other items, and the table of the new ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (user_id, item_id, place)
        for user_id, items in read_sequences(prepared)
        for place, item_id in enumerate(items)
        if item_id not in new
    ]
    pl.DataFrame(rows, schema=[USER_ID, ITEM_ID, POSITION], orient="row").write_parquet(folder / "log.parquet")
    items = prepared.items.drop(ITEM, COUNT, strict=False)
    chosen = pl.col(ITEM_ID).is_in(list(new))
    items.filter(~chosen).write_parquet(folder / ITEMS_FILE)
    items.filter(chosen).write_parquet(folder / NEW_FILE)


def split_config(config: dict[str, Any], prepared: PreparedSet, name: str, folder: Path) -> dict[str, Any]:
    """The configuration of the run on the log without the new items."""
    source: dict[str, Any] = {"interactions": "log.parquet", "items": ITEMS_FILE}
    source["text_columns"] = prepared.manifest["items"]["text_columns"]
    if IMAGE in prepared.items.columns:
        source["item_columns"] = {IMAGE: IMAGE}
    rules = {"min_interactions_per_user": 1, "min_interactions_per_item": 1}  # the whole log has been filtered already
    filtered = {**config.get("prepare", {}), **rules}
    return {**config, "name": name, "data": str(folder.absolute()), "input": source, "prepare": filtered}


# Ranking


@dataclass(frozen=True)
class Ranked:
    """Positions of the targets of some cases, equal scores counted half.

    Attributes:
        among_all: (C,) among all items that are not in the history.
        among_new: (C,) among the held-out items alone.
    """

    among_all: FloatArray
    among_new: FloatArray


@torch.inference_mode()
def rank(scores: Scores, histories: Sequence[NDArray[np.int32]], targets: NDArray[np.int64], known: int) -> Ranked:
    """Rank every case.

    Args:
        scores: of items 1..N + M.
        histories: item numbers, oldest first.
        targets: (C,) item numbers above `known`.
        known: N, items of the training part; the held-out ones follow.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for begin in range(0, len(histories), ROWS):
        part = list(histories[begin : begin + ROWS])
        columns = torch.from_numpy(targets[begin : begin + ROWS])[:, None] - 1
        rows = scores(history_batch(part, max(map(len, part)))).clone()
        for row, history in zip(rows, part, strict=True):
            row[torch.from_numpy(history.astype(np.int64)) - 1] = -torch.inf
        own = rows.gather(1, columns)
        found.append((_positions(rows, own), _positions(rows[:, known:], own)))
    return Ranked(*(torch.cat(parts).double().numpy() for parts in zip(*found, strict=True)))


def _positions(rows: Tensor, own: Tensor) -> Tensor:
    """(B,) 1 + items above + half of the others that are equal."""
    return 1 + (rows > own).sum(dim=1) + ((rows == own).sum(dim=1) - 1) / 2


def student_scores(model: Ranker) -> Scores:
    """Scores of all items of a student."""
    return lambda batch: model.head.block(model.states(cut(batch, model.max_length)), 1, model.num_items + 1)


def teacher_scores(model: Ranker, vectors: Tensor) -> Scores:
    """Cosines of a teacher's states and `vectors` (N + M, D) of known and new items."""
    return lambda batch: model.states(cut(batch, model.max_length)) @ vectors.t()


def popularity_scores(counts: NDArray[np.int64], new: int, seed: int) -> Scores:
    """Training counts; items without any in random order behind all others."""
    below = np.random.default_rng(seed).random(len(counts) + new) * 0.5
    row = torch.from_numpy(np.concatenate([counts, np.zeros(new)]) + below)
    return lambda batch: row.expand(len(batch), -1)


def cut(batch: Batch, length: int) -> Batch:
    """The batch with the last `length` items of every history."""
    rows = [row[:size][-length:].tolist() for row, size in zip(batch.items, batch.lengths.tolist(), strict=True)]
    return history_batch(rows, length)


def random_rows(model: Ranker, known: int, seed: int) -> Ranker:
    """The student with directions of its new items drawn at random; lengths and biases stay."""
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(model)
    state = changed.state_dict()
    for table in changed.item_tensors():
        if table.attribute or state[table.name].ndim == 1:
            continue
        width = state[table.name].shape[1] - table.biases
        new = state[table.name][known + 1 :, :width]
        drawn = torch.randn(new.shape, generator=generator)
        new.copy_(drawn / drawn.norm(dim=1, keepdim=True) * new.norm(dim=1, keepdim=True))
    return changed.eval()


# One seed


def run_seed(
    config: dict[str, Any], prepared: PreparedSet, options: argparse.Namespace, seed: int
) -> tuple[Path, Path]:
    """Train on the split of `seed` and add its held-out items; finished parts are kept. Folders of run and split."""
    name, folder = f"{config['name']}-new-items-{seed}", options.folder
    split = folder / f"split-{seed}"
    if not (split / NEW_FILE).is_file():
        write_split(prepared, held_out(prepared.item_ids, options.share, seed), split)
    file = folder / f"{name}.yaml"
    output = str((folder / "runs").absolute())
    run = {**split_config(config, prepared, name, split), "seeds": [seed], "output": output}
    file.write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
    distilrec("run", str(file), *options.overrides)
    distilrec("add-items", str(folder / "runs" / name), str(split / NEW_FILE))
    return folder / "runs" / name, split


def evaluate(run: Path, split: Path, prepared: PreparedSet, seed: int) -> tuple[list[Case], dict[str, Ranked]]:
    """The cases of a finished run with added items, and where every contender ranks their targets."""
    known, artifact = PreparedSet(run / "prepare"), find_artifact(run)
    model = load_model(artifact)
    table = pl.read_parquet(artifact / ITEMS_FILE)
    numbers = {name: number for number, name in enumerate(table[ITEM_ID].to_list(), start=1)}
    added = table[known.num_items :]
    cases = make_cases(read_sequences(prepared), set(added[ITEM_ID].to_list()), set(known.item_ids))
    histories = [np.array([numbers[item] for item in case.history], np.int32) for case in cases]
    targets = np.array([numbers[case.target] for case in cases], np.int64)
    contenders = {
        STUDENT: student_scores(model),
        "random rows": student_scores(random_rows(model, known.num_items, seed)),
        "popularity": popularity_scores(known.counts[1:], len(added), seed),
    }
    for name, (teacher, vectors) in teachers_of(run, artifact, split, added[ITEM_ID]).items():
        contenders[name] = teacher_scores(teacher, vectors)
    return cases, {name: rank(scores, histories, targets, known.num_items) for name, scores in contenders.items()}


def teachers_of(run: Path, artifact: Path, split: Path, added: pl.Series) -> dict[str, tuple[Ranker, Tensor]]:
    """Teachers that read new items, with their vectors (N + M, D) of known and of added items."""
    maker = read_projections(artifact)
    assert maker is not None, f"{artifact} took items, so it has a projection"
    folders = {name: run / "teach" / name for name in maker.teachers}
    manifest = PreparedSet(run / "prepare").manifest
    settings = InputConfig.model_validate(manifest["config"]["input"])
    items = read_new_items(str(split / NEW_FILE), settings, manifest["items"]["text_columns"], ItemColumns(), set())
    order = added.to_frame().join(items.frame, on=ITEM_ID, maintain_order="left")
    catalog, _ = catalog_of(run, replace(items, frame=order), folders, Quiet(), alone=True)  # the cache has them all
    found = {}
    for name, folder in folders.items():
        model = load_model(folder)
        assert isinstance(model, ReadsContent), folder
        old = model.item_vectors()[1:]  # type: ignore[operator]
        found[name] = (model, torch.cat([old, model.content_vectors(catalog)]))
    return found


# All seeds


def by_user(cases: Sequence[Case], values: FloatArray) -> dict[str, list[float]]:
    """The values of every user's cases."""
    found: dict[str, list[float]] = {}
    for case, value in zip(cases, values, strict=True):
        found.setdefault(case.user_id, []).append(float(value))
    return found


def summarize(results: Sequence[tuple[list[Case], dict[str, Ranked]]]) -> dict[str, Any]:
    """Recall of every contender among all and among the held-out items, per seed and over users, and paired tests."""
    document: dict[str, Any] = {"cutoff": CUTOFF, "cases": [len(cases) for cases, _ in results]}
    for field in ("among_all", "among_new"):
        users = {name: _user_means(results, name, field) for name in results[0][1]}
        rows = {}
        for name, values in users.items():
            per_seed = [float(recall(getattr(ranked[name], field), CUTOFF).mean()) for _, ranked in results]
            rows[name] = {
                "recall": fmean(per_seed),
                "per_seed": per_seed,
                "of_users": float(values.mean()),
                "student_against": None if name == STUDENT else paired_test(users[STUDENT], values),
            }
        document[field] = rows
    return document


def _user_means(results: Sequence[tuple[list[Case], dict[str, Ranked]]], name: str, field: str) -> FloatArray:
    merged: dict[str, list[float]] = {}
    for cases, ranked in results:
        for user, values in by_user(cases, recall(getattr(ranked[name], field), CUTOFF)).items():
            merged.setdefault(user, []).extend(values)
    return np.array([fmean(merged[user]) for user in sorted(merged)])


def show(document: dict[str, Any], title: str) -> Table:
    """One row per contender."""
    columns = [f"{place}: {what}" for place in ("all items", "new items") for what in ("recall", "p against student")]
    table = Table("ranks by", *columns, title=title)
    for name in document["among_all"]:
        cells = []
        for field in ("among_all", "among_new"):
            row = document[field][name]
            p_value = row["student_against"]
            cells += [f"{row['recall']:.4f}", "" if p_value is None else f"{p_value:.2g}"]
        table.add_row(name, *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value, for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the split and of the student")
    parser.add_argument("--share", type=float, default=0.1, help="of the items that is held out")
    parser.add_argument("--folder", type=Path, default=Path("runs/new-items"), help="of splits and runs")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    plain = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    config = load_config(options.config)
    whole = options.folder / "whole"
    if not (whole / MANIFEST_FILE).is_file():
        whole.mkdir(parents=True, exist_ok=True)
        write_standalone_manifest(whole, prepare(config.data, config.input, config.prepare, whole, Quiet()))
    prepared = PreparedSet(whole)
    runs = [run_seed(plain, prepared, options, seed) for seed in options.seeds]
    results = [evaluate(*folders, prepared, seed) for folders, seed in zip(runs, options.seeds, strict=True)]
    document = summarize(results)
    cases = ", ".join(f"{count:,}" for count in document["cases"])
    Console().print(show(document, f"{config.name}: Recall@{CUTOFF}, {cases} cases"))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
