"""Is a difference between two models more than chance? Paired over users; seeds are averaged before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FloatArray = NDArray[np.float64]
ROUNDING = 1e-12  # differences that floating point makes


def seed_mean(runs: Sequence[FloatArray]) -> FloatArray:
    """(U,) each user's mean over the seeds. A test over users x seeds would count every user several times.

    Raises:
        ValueError: no run, or runs over different users.
    """
    if not runs or any(len(run) != len(runs[0]) for run in runs):
        raise ValueError(f"expected runs over the same users, got lengths {[len(run) for run in runs]}")
    mean: FloatArray = np.mean(np.stack(runs), axis=0)
    return mean


def paired_test(candidate: FloatArray, baseline: FloatArray) -> float:
    """Two-sided p-value of the paired t-test over users; 1 where no user differs or fewer than two users exist."""
    difference = candidate - baseline
    if len(difference) < 2 or np.ptp(difference) < ROUNDING:
        # A constant difference has no variance: certain where it is not zero, but only with users to show it.
        return 0.0 if len(difference) > 1 and abs(difference[0]) > ROUNDING else 1.0
    return float(stats.ttest_1samp(difference, 0.0).pvalue)


def _resampled_sums(columns: list[FloatArray], samples: int, seed: int) -> FloatArray:
    """(samples, columns) sums over resampled users.

    Users with equal values are exchangeable, so drawing how often each distinct row occurs (multinomial) equals drawing
    users one by one; with positions cut at 20 there are at most some hundred distinct rows, however many users.
    """
    rows, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    users = int(counts.sum())
    sums = np.empty((samples, len(columns)))
    block = max(1, 2**22 // len(rows))
    for begin in range(0, samples, block):
        size = min(block, samples - begin)
        sums[begin : begin + size] = generator.multinomial(users, counts / users, size=size) @ rows
    return sums


def _percentiles(values: FloatArray, confidence: float) -> tuple[float, float]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def mean_interval(
    values: FloatArray, samples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of the mean over users.

    Raises:
        ValueError: no user.
    """
    if len(values) == 0:
        raise ValueError("no user to resample")
    return _percentiles(_resampled_sums([values], samples, seed)[:, 0] / len(values), confidence)


def relative_gain(candidate: FloatArray, baseline: FloatArray) -> float | None:
    """Gain of the mean, relative to the baseline's; None where the baseline's mean is 0.

    >>> relative_gain(np.array([0.5, 0.7]), np.array([0.5, 0.5])).__round__(6)
    0.2
    """
    mean = float(baseline.mean())
    return float(candidate.mean()) / mean - 1.0 if mean else None


def relative_gain_interval(
    candidate: FloatArray, baseline: FloatArray, samples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Paired bootstrap interval of the relative gain: both models are resampled by the same users.

    None where the baseline scores 0 in any resample, because no ratio exists there.
    """
    sums = _resampled_sums([candidate, baseline], samples, seed)
    if (sums[:, 1] == 0).any():
        return None
    return _percentiles(sums[:, 0] / sums[:, 1] - 1.0, confidence)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction for several comparisons; keeps the order of the names.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    corrected: dict[str, float] = {}
    highest = 0.0
    for step, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def stars(p_value: float | None) -> str:
    """Stars as papers print them.

    >>> [stars(p) for p in (0.0004, 0.004, 0.04, 0.4, None)]
    ['***', '**', '*', '', '']
    """
    if p_value is None:
        return ""
    return "*" * sum(p_value < border for border in (0.05, 0.01, 0.001))
