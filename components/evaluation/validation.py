"""One number for early stopping; the training loop receives this function, it does not import it."""

from __future__ import annotations

from components.data.flat_sequences import EvaluationCases
from components.evaluation.metrics import metric_values
from components.evaluation.ranking import sample_cases, target_positions
from components.model import Ranker


def validation_metric(
    model: Ranker,
    cases: EvaluationCases,
    metric: str = "ndcg@10",
    *,
    max_users: int | None = None,
    seed: int = 0,
    mask_history: bool = False,
    batch_size: int = 512,
    device: str | None = None,
) -> float:
    """Mean of `metric` over the cases, all items ranked, ties against the model.

    Args:
        model: what ranks; it is left in the mode (training or not) in which it came.
        cases: usually ``sequences.cases("valid")``.
        metric: name and cutoff, such as ``"ndcg@10"``.
        max_users: rank for a fixed random sample of so many users only; None ranks for all.
        seed: chooses the sample.
        mask_history: leave the history's items out of the ranking.
        batch_size: histories per batch.
        device: where the model runs; None leaves it where it is.
    """
    chosen = sample_cases(cases, max_users, seed)
    positions = target_positions(model, chosen, mask_history=mask_history, batch_size=batch_size, device=device)
    return float(metric_values(positions, metric).mean())
