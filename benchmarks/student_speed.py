"""Training speed and memory of every student against the same model of a peer; `benchmarks.students` runs it.

A table is a contest of its own: ours, and the peers that have the model and the loss. A target is a position that
contributes to the loss, hidden items in BERT4Rec; what only counts is measured in interactions per fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import OURS
from benchmarks.peers.contest import Contender, compete, document
from benchmarks.peers.dataset import HELD_OUT, NeutralSet, read_neutral
from benchmarks.peers.matches import DIM, LENGTH, NAMES, SEQUENCES, Match
from benchmarks.peers.table import logs

SIZES: dict[str, Any] = {"dim": DIM, "layers": 2, "heads": 2, "inner": DIM, "dropout": 0.2, "length": LENGTH}
TRANSFORMERS = ("sasrec", "bert4rec")
WITHOUT_DIM = ("itemknn", "mostpop")
DROPOUT = 0.2


def arguments_of(match: Match) -> dict[str, Any]:
    """All arguments of our student in `match`."""
    common: dict[str, Any] = {"max_length": LENGTH} if match.student != "mostpop" else {}
    if match.student not in WITHOUT_DIM:
        common["dim"] = DIM
    if match.student in TRANSFORMERS:
        common |= {"num_layers": 2, "num_heads": 2, "dropout": DROPOUT}
    return common | match.ours


def targets_per_batch(neutral: NeutralSet) -> int:
    """Mean number of targets in a batch of ours: the latest window of every user.

    >>> import numpy as np
    >>> targets_per_batch(NeutralSet(np.ones(14, np.int64), np.array([0, 4, 14])))  # users with 1 and 7 targets
    512
    """
    inputs = neutral.lengths - HELD_OUT - 1
    trained = inputs[inputs >= 1]
    return round(float(trained.clip(max=LENGTH).mean()) * SEQUENCES)


def rows_of(match: Match, targets: int) -> int:
    """Rows of a peer's batch; one row of RecBole's factorization machines is a positive or a negative."""
    if isinstance(match.batch, int):
        return match.batch
    doubled = 2 if match.student in ("fm", "deepfm") else 1
    return targets * doubled if match.batch == "targets" else SEQUENCES


def ours_name(match: Match, among: Sequence[Match]) -> str:
    """How the tables call our side of `match`; with its norm where a table needs both."""
    forms = {str(arguments_of(each)) for each in among}
    return "distilrec" if len(forms) == 1 else f"distilrec, norm {match.ours['norm']}"


def contenders(
    matches: Sequence[Match], settings: Mapping[str, Any], neutral: NeutralSet, steps: int | None, seconds: float
) -> list[Contender]:
    """Ours in the forms that the peers of one table need, and the peers.

    Args:
        matches: all of one title.
        settings: what every worker is told.
        neutral: the data.
        steps: of ours per round; None for whole epochs, since its batches differ in length.
        seconds: CPU-seconds of a peer per round.
    """
    targets = targets_per_batch(neutral)
    epoch = -(-int((neutral.lengths - HELD_OUT >= 2).sum()) // SEQUENCES)
    ours: dict[str, Contender] = {}
    theirs = []
    for match in matches:
        name, told = ours_name(match, matches), {**settings, "task": match.task}
        own = {**told, "batch": SEQUENCES, "student": match.student, "arguments": arguments_of(match)}
        ours[name] = Contender(name, OURS, OURS, own, 1 if match.task == "fit" else steps or epoch)
        other = {**told, "batch": rows_of(match, targets), "theirs": match.theirs}
        theirs.append(
            Contender(
                NAMES[match.peer], match.peer, match.peer, other, 1, name, None if match.task == "fit" else seconds
            )
        )
    return [*ours.values(), *theirs]


def measure(
    matches: Sequence[Match],
    data: Path,
    settings: Mapping[str, Any],
    rounds: int,
    steps: int | None,
    seconds: float,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """One table: the contest of the matches of one title; see `contenders`."""
    neutral, title = read_neutral(data), matches[0].title
    told = {**SIZES, **settings, "data": str(data), "evaluation_batch": 256}
    results = compete(contenders(matches, told, neutral, steps, seconds), rounds, logs(f"students/{slug(title)}"), note)
    unit = "interactions" if matches[0].task == "fit" else "targets"
    told |= {"title": title, "targets_per_batch": targets_per_batch(neutral)}
    return document("students", told, results, unit=unit)


def slug(title: str) -> str:
    """A title as the name of a folder.

    >>> slug("SASRec, BCE, 1 negative each")
    'sasrec-bce-1-negative-each'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
