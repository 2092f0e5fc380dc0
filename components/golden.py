"""Golden requests: questions whose answers are sealed into an artifact, so that whoever loads it sees whether it still
answers as it did where it was made.

``golden.json`` holds a few histories, and item ids and scores for each. On the same kind of processor the answers are
equal to the last bit. Another kind sums in another order, so scores may differ by `TOLERANCE` of the answer's largest
score, and items whose scores are that close may change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from components.artifacts.format import REMEDY, read_json, write_json
from components.errors import ArtifactError
from components.inference import Scorer, one_thread
from components.model import Ranker
from components.recommender import Query, Recommendation, Recommender
from components.schema import ITEM_ID, ITEMS_FILE, PAD

GOLDEN_FILE: Final = "golden.json"
LENGTHS: Final = (1, 1, 2, 5, 10, 20)
K: Final = 10
TOLERANCE: Final = 1e-3


def write_golden(model: Ranker, folder: Path) -> None:
    """Ask `model` a few questions about the items in `folder`, and write what it answers beside them.

    Raises:
        ArtifactError: the model scores an item with NaN or infinity, so it cannot serve.
    """
    ids = pl.read_parquet(folder / ITEMS_FILE, columns=[ITEM_ID])[ITEM_ID].cast(pl.String).to_list()
    generator = np.random.default_rng(0)
    histories = [generator.integers(1, len(ids) + 1, size=length).astype(np.int32) for length in LENGTHS]
    with one_thread():
        scorer = Scorer(model, reproducible=True)
        items, scores = scorer.top_k(histories, min(K, len(ids)), users=[0] * len(histories))
    cases = []
    for history, row, values in zip(histories, items, scores, strict=True):
        left = int((row != PAD).sum())
        ranked = min(K, len(ids) - len(set(history.tolist())))  # a ranking leaves out what scores NaN
        if left != ranked or not np.isfinite(values[:left]).all():
            raise ArtifactError(f"{folder}: the model scores an item with NaN or infinity; train it again")
        found = {"items": [ids[item - 1] for item in row[:left]], "scores": [float(v) for v in values[:left]]}
        cases.append({"history": [ids[item - 1] for item in history], **found})
    write_json(folder / GOLDEN_FILE, {"k": K, "exclude_seen": True, "cases": cases})


def check_golden(recommender: Recommender) -> bool:
    """Ask the golden requests of a loaded artifact again; False where it has none, as those of older programs.

    Raises:
        ArtifactError: an answer is another one; the message says which and how.
    """
    if GOLDEN_FILE not in recommender.manifest["files"]:
        return False
    path = recommender.folder / GOLDEN_FILE
    golden = read_json(path)
    try:
        cases: list[dict[str, Any]] = golden["cases"]
        queries = [Query(case["history"], golden["k"], golden["exclude_seen"]) for case in cases]
        expected = [list(zip(case["items"], case["scores"], strict=True)) for case in cases]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: not a list of golden requests ({error!r}); {REMEDY}") from error
    with one_thread():
        answers = recommender.answer(queries)
    for number, (wanted, answer) in enumerate(zip(expected, answers, strict=True)):
        if difference := differs(wanted, answer):
            raise ArtifactError(
                f"{path}: golden request {number} is answered otherwise than where the artifact was made: "
                f"{difference}. This machine or its libraries compute something else; compare the versions of torch, "
                "or export again"
            )
    return True


def differs(wanted: Sequence[tuple[str, float]], answer: Recommendation) -> str:
    """How an answer differs from the expected items and scores beyond `TOLERANCE`; empty where it does not."""
    if len(answer.items) != len(wanted):
        return f"{len(answer.items)} items instead of {len(wanted)}"
    scores = [score for _, score in wanted]
    near = TOLERANCE * max([1e-3, *(abs(score) for score in scores)])
    known = dict(wanted)
    for place, (item, (expected, score)) in enumerate(zip(answer.items, wanted, strict=True), start=1):
        if not abs(item.score - score) <= near:  # so that a NaN differs
            return f"score {item.score:.6g} instead of {score:.6g} at position {place}"
        if item.item_id != expected and not abs(known.get(item.item_id, scores[-1]) - score) <= 2 * near:
            return f"item {item.item_id!r} instead of {expected!r} at position {place}"
    return ""
