"""The decision, as a pure function: may a candidate go on after what was measured of it?"""

from __future__ import annotations

import math
from typing import Final

from serve.release.figures import Figures, Tally
from serve.release.policy import Policy

ERRORS_AT_LEAST: Final = 3  # a single failure is no rate
TIMES_AT_LEAST: Final = 5  # rankings before their times are compared
KNOWN_AT_LEAST: Final = 20  # items of requests before it is judged how many a model knows
SLACK_S: Final = 0.002  # differences of latency below this are nobody's concern
CASES_AT_LEAST: Final = 30
ONE_SIDED: Final = 1.645  # 5 % of the normal distribution
CAREFUL: Final = 2.6  # half a percent: times are looked at several times a second, and machines have bad moments
SLOWEST: Final = 0.95  # the percentile that is compared


def failure(policy: Policy, figures: Figures) -> str:
    """Why the candidate must not go on, in one sentence; empty where nothing speaks against it yet."""
    for check in (_errors, _latency, _known, _overlap, _quality):
        reason = check(policy, figures)
        if reason:
            return reason
    return ""


def enough(policy: Policy, figures: Figures) -> bool:
    """Whether enough was compared to end a step."""
    return figures.comparisons >= policy.min_comparisons


def _errors(policy: Policy, figures: Figures) -> str:
    for place, tally, other in (
        ("live requests", figures.live, figures.live_incumbent),
        ("recorded requests", figures.candidate, figures.incumbent),
    ):
        bound = max(policy.max_error_rate, 2 * other.error_rate)
        if tally.errors >= ERRORS_AT_LEAST and tally.error_rate > bound:
            return (
                f"{tally.errors} of {tally.requests} {place} failed (allowed: {bound:.1%}), "
                f"the last one with: {tally.last_error}"
            )
    return ""


def _latency(policy: Policy, figures: Figures) -> str:
    ours, theirs = figures.candidate, figures.incumbent
    if min(_timed(ours), _timed(theirs)) < TIMES_AT_LEAST:
        return ""
    at_least, at_most = ours.quantile(SLOWEST - _spread(ours)), theirs.quantile(min(1.0, SLOWEST + _spread(theirs)))
    if at_least <= policy.max_latency_ratio * at_most + SLACK_S:
        return ""
    return (
        f"it is slow: 95 % of its rankings take up to {ours.quantile(SLOWEST) * 1000:.1f} ms, the incumbent's "
        f"{theirs.quantile(SLOWEST) * 1000:.1f} ms (allowed: {policy.max_latency_ratio:g} times as long)"
    )


def _spread(tally: Tally) -> float:
    """How far the share of times below the true percentile may be from it by chance."""
    return CAREFUL * math.sqrt(SLOWEST * (1 - SLOWEST) / _timed(tally))


def _timed(tally: Tally) -> int:
    return sum(tally.counts)


def _known(policy: Policy, figures: Figures) -> str:
    theirs, ours = figures.known
    if theirs < KNOWN_AT_LEAST or ours >= policy.min_known_ratio * theirs:
        return ""
    return (
        f"it knows {ours} of the {theirs} items of recorded requests that the incumbent knows "
        f"(wanted: {policy.min_known_ratio:.0%}); was it trained on another catalog?"
    )


def _overlap(policy: Policy, figures: Figures) -> str:
    if figures.comparisons < min(CASES_AT_LEAST, policy.min_comparisons):
        return ""
    mean = figures.overlap / figures.comparisons
    if mean >= policy.min_overlap:
        return ""
    return f"its rankings share {mean:.1%} of the incumbent's items (wanted: {policy.min_overlap:.1%})"


def _quality(policy: Policy, figures: Figures) -> str:
    count = figures.cases
    if count < min(CASES_AT_LEAST, policy.min_comparisons) or count < 2:
        return ""
    mean = figures.excess[0] / count
    variance = max(0.0, figures.excess[1] / count - mean**2) * count / (count - 1)
    if mean + ONE_SIDED * math.sqrt(variance / count) >= 0:
        return ""
    incumbent, candidate = (value / count for value in figures.quality)
    return (
        f"it ranks badly: NDCG {candidate:.4f} of the last item of {count} recorded histories, the incumbent "
        f"{incumbent:.4f} (wanted: {policy.min_quality_ratio:.0%} of it)"
    )
