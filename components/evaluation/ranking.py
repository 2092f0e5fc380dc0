"""Where the target stands in the ranking of ALL items, for every evaluated user.

The scores come from ``components.inference``, the one scoring path that serving uses too; this file adds which users
are asked and what is done with the answer.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from components.data.flat_sequences import EvaluationCases
from components.errors import DataError, StageError
from components.inference import Scorer
from components.model import Ranker

IntArray = NDArray[np.int64]
CHUNK = 4096  # histories that are handed to the scorer at once; bounds memory for long lists of users


def device_of(model: Ranker) -> str:
    """The device of the model's tensors; ``"cpu"`` for a model without any."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return "cpu" if tensor is None else str(tensor.device)


def select_cases(cases: EvaluationCases, chosen: IntArray) -> EvaluationCases:
    """The cases numbered `chosen`, in that order."""
    return EvaluationCases(
        cases.sequences, cases.rows[chosen], cases.starts[chosen], cases.lengths[chosen], cases.targets[chosen]
    )


def sample_cases(cases: EvaluationCases, max_users: int | None, seed: int = 0) -> EvaluationCases:
    """At most `max_users` cases, drawn without replacement and kept in their order; all of them for None.

    The same seed gives the same users, so that epochs and models are compared on equal terms.
    """
    if max_users is None or len(cases) <= max_users:
        return cases
    chosen = np.random.default_rng(seed).choice(len(cases), size=max_users, replace=False)
    return select_cases(cases, np.sort(chosen))


def target_positions(
    model: Ranker,
    cases: EvaluationCases,
    *,
    mask_history: bool = False,
    ties: str = "against",
    batch_size: int = 512,
    device: str | None = None,
) -> IntArray:
    """(C,) 1-based position of each case's target among all items; exact, by counting, blocked over items.

    Args:
        model: what ranks; its training mode is restored.
        cases: histories and targets.
        mask_history: leave the items of the history out of the ranking (never the target).
        ties: ``"against"``, ``"average"`` or ``"for"`` the target.
        batch_size: histories per batch.
        device: where the model runs; None leaves it where it is.

    Raises:
        DataError: there is no case.
        StageError: a position lies outside 1..N, which means that scores are not numbers.
    """
    if len(cases) == 0:
        raise DataError("no user to evaluate: this part of the split is empty; use another split or more data")
    training = model.training
    try:
        scorer = Scorer(model, batch_size=batch_size, device=device or device_of(model))
        positions = scorer.positions(cases, mask_history=mask_history, ties=ties)
    finally:
        model.train(training)
    if positions.min() < 1 or positions.max() > model.num_items:
        raise StageError(f"{type(model).__name__}: positions outside 1..{model.num_items}; its scores are not numbers")
    return positions


def top_lists(
    model: Ranker,
    cases: EvaluationCases,
    k: int,
    *,
    exclude_seen: bool = False,
    batch_size: int = 512,
    device: str | None = None,
) -> NDArray[np.int32]:
    """(C, k) the best items of each case, best first.

    Args:
        model: what ranks; its training mode is restored.
        cases: histories; the targets are not used.
        k: length of the lists, cut to the number of items.
        exclude_seen: leave the items of the history out.
        batch_size: histories per batch.
        device: where the model runs; None leaves it where it is.
    """
    training = model.training
    k = min(k, model.num_items)
    lists = np.zeros((len(cases), k), dtype=np.int32)
    order = np.argsort(cases.lengths, kind="stable")  # alike lengths share a batch
    try:
        scorer = Scorer(model, batch_size=batch_size, device=device or device_of(model))
        for begin in range(0, len(order), CHUNK):
            chosen = order[begin : begin + CHUNK]
            histories = [cases.history(int(case)) for case in chosen]
            users = [int(user) for user in cases.users[chosen]]
            lists[chosen] = scorer.top_k(histories, k, exclude_seen=exclude_seen, users=users)[0]
    finally:
        model.train(training)
    return lists
