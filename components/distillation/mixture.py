"""Base weights that are learnt: the mixture of teachers that predicts held-out items best (not in PRM-KD).

It must not be fitted on training targets. Teachers were trained on them, and the one that knows them by heart would get
all the weight. Validation targets are the same evidence on which the teachers' strengths rest.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from components.data.flat_sequences import EvaluationCases, IntArray
from components.distillation.teacher_scores import FLOOR, TeacherCache, normalize

MOST_CASES = 4096  # a few weights need no more
AT_ONCE = 2**24  # probabilities in memory


def mixture_weights(log_likelihoods: Tensor, iterations: int = 1000, tolerance: float = 1e-7) -> Tensor:
    """Maximize ``mean over i of log(sum over k of w_k s_ik)`` over w >= 0 with sum 1, by expectation maximization.

    ``w_k <- mean over i of w_k s_ik / sum over k' of w_k' s_ik'`` from uniform weights. The objective is concave and
    never falls; ends when no weight changes by more than `tolerance`.

    Args:
        log_likelihoods: (K, n) finite, log s_ik: log-probability that teacher k gives the item that case i took.
        iterations: at most so many.
        tolerance: largest change that counts as none.

    Returns:
        (K,) float64.

    Raises:
        ValueError: no cases, or a log-likelihood that is not finite.

    >>> certain, unsure = [0.9, 0.9], [0.1, 0.1]  # the first is better in every case
    >>> mixture_weights(torch.tensor([certain, unsure]).log()).numpy().round(3).tolist()
    [1.0, 0.0]
    """
    values = log_likelihoods.double()
    if values.shape[1] == 0 or not bool(torch.isfinite(values).all()):
        raise ValueError(f"expected (K, n >= 1) finite log-likelihoods, got shape {tuple(values.shape)}")
    weights = torch.full((len(values),), 1.0 / len(values), dtype=torch.float64, device=values.device)
    for _ in range(iterations):
        updated = (values + weights.log()[:, None]).softmax(dim=0).mean(dim=1)
        change = (updated - weights).abs().max()
        weights = updated
        if change <= tolerance:
            break
    return weights


@torch.no_grad()
def target_log_likelihoods(
    cache: TeacherCache, cases: EvaluationCases, seen: Literal["keep", "drop"] = "keep", most: int = MOST_CASES
) -> Tensor:
    """(K, n) log-probability of each case's target in every teacher's distribution over the whole catalog.

    Args:
        cache: teachers whose states are those of `cases`, row by row.
        cases: held-out histories and targets; at most `most` of them count, evenly taken.
        seen: "drop" leaves out the items of the history, as the distillation does.
        most: n.
    """
    candidates = torch.arange(1, len(cache.items[0]))
    chosen = np.arange(len(cases))[:: max(-(-len(cases) // most), 1)]
    size = max(AT_ONCE // (len(cache) * len(candidates)), 1)
    parts = []
    for begin in range(0, len(chosen), size):
        some = chosen[begin : begin + size]
        scores = cache.scores(torch.from_numpy(some), candidates)  # (K, B, N)
        if seen == "drop":
            scores = normalize(scores.masked_fill_(_seen(cases, some, len(candidates)), 0.0))
        columns = torch.from_numpy(cases.targets[some] - 1)
        parts.append(scores[:, torch.arange(len(some)), columns])
    return torch.cat(parts, dim=1).clamp_min(FLOOR).log() if parts else torch.zeros(len(cache), 0)


def _seen(cases: EvaluationCases, chosen: IntArray, num_items: int) -> Tensor:
    """(B, N) whether an item is in the history of each chosen case; its own target never is."""
    seen = torch.zeros(len(chosen), num_items, dtype=torch.bool)
    for row, case in enumerate(chosen.tolist()):
        seen[row, cases.history(case).astype(np.int64) - 1] = True
    seen[torch.arange(len(chosen)), torch.from_numpy(cases.targets[chosen] - 1)] = False
    return seen
