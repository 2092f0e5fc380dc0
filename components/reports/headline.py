"""The result of a run in a few sentences, derived from the leaderboard alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluation.leaderboard import main_metric
from components.reports.plots import metric_title

Row = Mapping[str, Any]
SIGNIFICANT = 0.05


def headline(leaderboard: Mapping[str, Any]) -> list[str]:
    """What a reader should take away: the best student, its gain, what is left of the teacher, and warnings.

    Args:
        leaderboard: the content of ``leaderboard.json``.
    """
    rows, metric = leaderboard["rows"], main_metric(leaderboard["cutoffs"])
    best = {kind: _best(rows, kind, metric) for kind in ("student", "teacher", "baseline")}
    leader = best["student"] or best["teacher"] or best["baseline"]
    if leader is None:
        return ["Nothing was evaluated."]
    reference = next((row for row in rows if row["name"] == leader.get("baseline")), None)
    sentences = [_gain_sentence(leader, reference, metric)]
    if best["student"] and best["teacher"]:
        sentences.append(_teacher_sentence(best["student"], best["teacher"], metric))
    counting = best["baseline"]
    if counting and counting is not leader and counting["metrics"][metric] >= leader["metrics"][metric]:
        sentences.append(f"Warning: {counting['name']}, which only counts, ranks at least as well as every student.")
    return sentences


def _best(rows: Sequence[Row], kind: str, metric: str) -> Row | None:
    """The best row of a kind."""
    return max((row for row in rows if row["kind"] == kind), key=lambda row: row["metrics"][metric], default=None)


def _gain_sentence(row: Row, reference: Row | None, metric: str) -> str:
    text = f"{row['name']} reaches {metric_title(metric)} {row['metrics'][metric]:.4f}"
    gain = (row.get("gain") or {}).get(metric)
    if reference is None or not gain or gain["relative"] is None:
        return f"{text}."
    side = "above" if gain["relative"] >= 0 else "below"
    text += f", {abs(gain['relative']):.1%} {side} {reference['name']}"
    details = [f"95 % interval {gain['interval'][0]:+.1%} to {gain['interval'][1]:+.1%}"] if gain["interval"] else []
    p_value = row["p_value"][metric]
    details.append("p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}")
    if p_value >= SIGNIFICANT:
        details.append("which may be chance")
    return f"{text} ({', '.join(details)}){_same_size(row, reference)}."


def _same_size(row: Row, reference: Row) -> str:
    totals = [(candidate.get("parameters") or {}).get("total") for candidate in (row, reference)]
    if None in totals:
        return ""
    if totals[0] == totals[1]:
        return " at the same number of parameters"
    return f" with {totals[0]:,} instead of {totals[1]:,} parameters"


def _teacher_sentence(student: Row, teacher: Row, metric: str) -> str:
    kept = student["metrics"][metric] / teacher["metrics"][metric] if teacher["metrics"][metric] else 0.0
    text = f"That is {kept:.0%} of the best teacher, {teacher['name']} ({teacher['metrics'][metric]:.4f})"
    if student.get("bytes") and teacher.get("bytes"):
        ratio = teacher["bytes"] / student["bytes"]
        text += f", in {ratio:.1f} times fewer bytes" if ratio >= 1 else f", in {1 / ratio:.1f} times more bytes"
    return f"{text}."
