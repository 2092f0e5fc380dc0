"""Quality at equal training time: ours and the peers train side by side and stop to rank (`benchmarks.students`).

Every side gets the same CPU-seconds of training steps, in equal shares. After each share it ranks all items for all
users, for validation and for the test, with the items of the history left out; ranking is not charged. The test figures
are those of the share with the best validation NDCG@10: early stopping, the same for all. The lists of every side, 20
items long, go through our own metric functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.environments import OURS
from benchmarks.peers.contest import Contender, ContenderError, Worker, machine
from benchmarks.peers.dataset import list_positions, read_neutral
from benchmarks.peers.matches import NAMES, SEQUENCES, Match
from benchmarks.peers.table import console, logs
from benchmarks.student_speed import SIZES, arguments_of, rows_of, slug, targets_per_batch
from components.evaluation.metrics import mean_metrics

LIST = 20  # items of a ranking that are compared
CHOSEN_BY = "ndcg@10"


@dataclass
class Side:
    """One contender and what it reached after every share of its time."""

    contender: Contender
    facts: dict[str, Any] = field(default_factory=dict)
    shares: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    @property
    def best(self) -> dict[str, Any]:
        """The share with the best validation, the earliest of equals."""
        return max(self.shares, key=lambda share: share["valid"][CHOSEN_BY])


def sides_of(matches: Sequence[Match], settings: Mapping[str, Any], targets: int) -> list[Side]:
    """Ours, and the peers that have the student."""
    match = matches[0]
    own = {**settings, "batch": SEQUENCES, "windows": "all", "student": match.student, "arguments": arguments_of(match)}
    sides = [Contender(OURS, OURS, OURS, own, 1)]
    for match in matches:
        told = {**settings, "batch": rows_of(match, targets), "theirs": match.theirs}
        sides.append(Contender(NAMES[match.peer], match.peer, match.peer, told, 1, against=OURS))
    return [Side(contender) for contender in sides]


def train_and_rank(
    matches: Sequence[Match],
    data: Path,
    settings: Mapping[str, Any],
    budget: float,
    shares: int,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """One student on one data set: all sides, their shares interleaved.

    Args:
        matches: all of one title.
        data: the neutral set.
        settings: what every worker is told.
        budget: CPU-seconds of training steps for each side.
        shares: in how many parts; each ends in a ranking.
        note: told what happens.

    Returns:
        The figures, ready for JSON.
    """
    neutral, title = read_neutral(data), matches[0].title
    folder = logs(f"students/{data.stem}-{slug(title)}")
    told = {**SIZES, **settings, "task": "train", "data": str(data), "evaluation_batch": 256, "list": LIST}
    sides = sides_of(matches, told, targets_per_batch(neutral))
    targets = {part: neutral.targets(part) for part in ("valid", "test")}
    workers: dict[str, Worker] = {}
    try:
        for number in range(shares):
            for side in sides:
                attempt(side, workers, folder, budget / shares, targets)
            note(f"{data.stem}, {title}: share {number + 1} of {shares} done")
    finally:
        for worker in workers.values():
            worker.close()
    return {"data": data.stem, "student": title, "budget": budget, "machine": machine(), "sides": rows(sides)}


def attempt(side: Side, workers: dict[str, Worker], folder: Path, seconds: float, targets: Mapping[str, Any]) -> None:
    """One share of one side; a side that fails is left out from then on and says why."""
    if side.failure is not None:
        return
    name = side.contender.name
    try:
        if name not in workers:
            workers[name] = Worker(side.contender, folder)
            side.facts = workers[name].facts
        done = workers[name].ask(seconds=seconds)
        figures = {
            part: rank(workers[name], part, wanted, folder / f"{slug(name)}.npy") for part, wanted in targets.items()
        }
    except ContenderError as error:
        side.failure = str(error)
        return
    before = side.shares[-1] if side.shares else {"cpu_s": 0.0, "targets": 0}
    used = {"cpu_s": before["cpu_s"] + done["cpu_s"], "targets": before["targets"] + done["units"]}
    side.shares.append({**used, "loss": done["value"], "peak_mb": done["peak_mb"], **figures})


def rank(worker: Worker, part: str, targets: Any, file: Path) -> dict[str, float]:
    """Mean metrics of the lists that a worker writes for `part`."""
    worker.ask(rank=part, file=str(file))
    return mean_metrics(list_positions(np.load(file, allow_pickle=False), targets), (10, LIST))


def rows(sides: Sequence[Side]) -> dict[str, dict[str, Any]]:
    """By name: the best share, all shares, and ours / theirs in test NDCG@10 where both have figures."""
    ours = next((side.best for side in sides if side.contender.against is None and side.shares), None)
    found: dict[str, dict[str, Any]] = {}
    for side in sides:
        row = found[side.contender.name] = {"facts": side.facts, "failure": side.failure, "shares": side.shares}
        if side.failure is not None or not side.shares:
            continue
        row["best"] = side.best
        theirs = side.best["test"][CHOSEN_BY]
        if ours is not None and side.contender.against and theirs > 0:
            row["ours_over_theirs"] = ours["test"][CHOSEN_BY] / theirs
    return found


def show(documents: Sequence[Mapping[str, Any]]) -> None:
    """Print the table."""
    screen = console()
    budget = documents[0]["budget"]
    table = Table(title=f"{budget:g} CPU-seconds of training each, all items ranked, history left out")
    for column in ("data", "student", "side"):
        table.add_column(column)
    for column in ("targets seen", "best at", "test NDCG@10", "Recall@10", "ours / theirs", "peak MB"):
        table.add_column(column, justify="right")
    for document in documents:
        for name, row in document["sides"].items():
            table.add_row(document["data"], document["student"], name, *cells(row))
    screen.print(table)
    screen.print("best at: the ranking with the best validation NDCG@10, in CPU-seconds of training", markup=False)
    for document in documents:
        for name, row in document["sides"].items():
            if row["failure"]:
                screen.print(f"{document['data']}, {document['student']}, {name}: {row['failure']}", markup=False)


def cells(row: Mapping[str, Any]) -> list[str]:
    """The figures of one side as text."""
    if "best" not in row:
        return ["failed", *["-"] * 5]
    best, last = row["best"], row["shares"][-1]
    ratio = f"{row['ours_over_theirs']:.3f}" if "ours_over_theirs" in row else "-"
    test = best["test"]
    return [
        f"{last['targets']:,}",
        f"{best['cpu_s']:.0f} s",
        f"{test['ndcg@10']:.4f}",
        f"{test['recall@10']:.4f}",
        ratio,
        f"{last['peak_mb']:,.0f}",
    ]
