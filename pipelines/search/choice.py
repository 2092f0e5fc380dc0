"""What a search found: the Pareto front and the winner, as pure functions of the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.errors import StageError
from pipelines.search.config import SearchConfig
from pipelines.search.trial import METRIC_ROW, Record


@dataclass(frozen=True)
class Winner:
    """The best student and why it is."""

    record: Record
    reason: str


def costs(record: Record) -> tuple[float, ...]:
    """What is to be small: minus the metric, bytes, latency."""
    return (-record.best, record.weight.bytes, float("inf") if record.latency_ms is None else record.latency_ms)


def dominates(one: Record, other: Record) -> bool:
    """Whether `one` is nowhere worse than `other` in NDCG@10, bytes and latency, and somewhere better."""
    first, second = costs(one), costs(other)
    return first != second and all(low <= high for low, high in zip(first, second, strict=True))


def pareto_front(records: Sequence[Record]) -> list[Record]:
    """The finished students that no other finished one dominates, smallest first."""
    done = [record for record in records if record.state == "done"]
    front = [record for record in done if not any(dominates(other, record) for other in done)]
    return sorted(front, key=lambda record: (record.weight.bytes, -record.best, record.number))


def fits(record: Record, budget: SearchConfig) -> bool:
    """Whether a finished student keeps all budgets."""
    slow = budget.max_latency_ms is not None and (record.latency_ms or 0.0) > budget.max_latency_ms
    return record.weight.excess(budget) <= 0 and not slow


def choose_winner(records: Sequence[Record], budget: SearchConfig) -> Winner:
    """The best validation NDCG@10 within the budgets; of equal ones the smaller, then the earlier.

    Raises:
        StageError: no student finished, or none keeps the budgets.
    """
    done = [record for record in records if record.state == "done"]
    if not done:
        reasons = [record.reason for record in records if record.reason]
        raise StageError(
            f"no student of the search finished training; {reasons[0] if reasons else 'raise search.trials'}"
        )
    fitting = [record for record in done if fits(record, budget)]
    if not fitting:
        fastest = min(done, key=lambda record: record.latency_ms or 0.0)
        raise StageError(
            f"search.max_latency_ms: {budget.max_latency_ms:g} was met by none of {len(done)} finished students; the "
            f"fastest (student {fastest.number}) takes {fastest.latency_ms:.3f} ms; raise it, or search smaller ones"
        )
    best = min(fitting, key=lambda record: (-record.best, record.weight.bytes, record.number))
    limits = [
        f"{name} {limit:,}"
        for name, limit in (
            ("max_parameters", budget.max_parameters),
            ("max_bytes", budget.max_bytes),
            ("max_latency_ms", budget.max_latency_ms),
        )
        if limit is not None
    ]
    over = len(done) - len(fitting)
    reason = (
        f"student {best.number}: best {METRIC_ROW} ({best.best:.4f}) of {len(fitting)} finished students"
        f"{' within ' + ', '.join(limits) if limits else ''}, with {best.weight.parameters:,} parameters in "
        f"{best.weight.bytes:,} bytes{f' and {best.latency_ms:.3f} ms a request' if best.latency_ms else ''}"
        f"{f'; {over} finished ones were too large or too slow' if over else ''}"
    )
    return Winner(best, reason)
