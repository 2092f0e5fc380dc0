from __future__ import annotations

import doctest

import numpy as np
import pytest
from scipy import stats

from components.evaluation import significance
from components.evaluation.significance import (
    holm,
    mean_interval,
    paired_test,
    relative_gain,
    relative_gain_interval,
    seed_mean,
    stars,
)

USERS = 3000


@pytest.fixture
def baseline() -> np.ndarray:
    """Values as NDCG has them: many zeros, few distinct others."""
    generator = np.random.default_rng(0)
    positions = generator.geometric(0.03, size=USERS)
    return np.where(positions <= 10, 1 / np.log2(1 + positions), 0.0)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(significance).failed == 0


def test_a_planted_difference_is_found_and_a_control_is_not(baseline: np.ndarray) -> None:
    generator = np.random.default_rng(1)
    better = np.where(generator.random(USERS) < 0.05, 1.0, baseline)
    swapped = baseline.copy()
    swapped[:200], swapped[-200:] = baseline[-200:], baseline[:200]  # other users, the same mean
    assert paired_test(better, baseline) < 0.001
    low, high = relative_gain_interval(better, baseline) or (0.0, 0.0)
    assert 0 < low < (relative_gain(better, baseline) or 0.0) < high
    assert paired_test(swapped, baseline) > 0.05
    low, high = relative_gain_interval(swapped, baseline) or (0.0, 0.0)
    assert low < 0 < high


def test_equals_scipy(baseline: np.ndarray) -> None:
    other = np.roll(baseline, 7)
    assert paired_test(other, baseline) == pytest.approx(stats.ttest_rel(other, baseline).pvalue)


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Two models that differ by chance alone: about one in twenty tests may cry."""
    generator = np.random.default_rng(3)
    p_values = [paired_test(generator.random(50), generator.random(50)) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_no_difference_and_no_users() -> None:
    same = np.array([0.1, 0.5, 0.0])
    assert paired_test(same, same) == 1.0
    assert paired_test(np.array([1.0]), np.array([0.0])) == 1.0
    assert paired_test(same + 0.25, same) == pytest.approx(0.0, abs=1e-9)


def test_the_interval_equals_plain_resampling(baseline: np.ndarray) -> None:
    generator = np.random.default_rng(5)
    means = [baseline[generator.integers(USERS, size=USERS)].mean() for _ in range(4000)]
    expected = np.percentile(means, [2.5, 97.5])
    np.testing.assert_allclose(mean_interval(baseline, samples=4000), expected, rtol=0.02)


def test_the_interval_of_the_gain_is_paired(baseline: np.ndarray) -> None:
    """A constant factor leaves no doubt about the ratio, however much users differ."""
    low, high = relative_gain_interval(1.1 * baseline, baseline) or (0.0, 0.0)
    assert low == pytest.approx(0.1, abs=1e-9)
    assert high == pytest.approx(0.1, abs=1e-9)


def test_no_ratio_to_nothing() -> None:
    nothing = np.zeros(5)
    assert relative_gain(nothing + 1, nothing) is None
    assert relative_gain_interval(nothing + 1, nothing) is None


def test_intervals_are_fixed_by_the_seed(baseline: np.ndarray) -> None:
    assert mean_interval(baseline, seed=1) == mean_interval(baseline, seed=1)
    assert mean_interval(baseline, seed=1) != mean_interval(baseline, seed=2)
    with pytest.raises(ValueError, match="no user"):
        mean_interval(np.array([]))


def test_seeds_are_averaged_per_user() -> None:
    assert seed_mean([np.array([0.0, 1.0]), np.array([1.0, 1.0])]).tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match=r"same users, got lengths \[2, 3\]"):
        seed_mean([np.zeros(2), np.zeros(3)])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, {}),
        ({"a": 0.02}, {"a": 0.02}),
        ({"a": 0.5, "b": 0.6}, {"a": 1.0, "b": 1.0}),
        ({"b": 0.04, "a": 0.001, "c": 0.03}, {"b": 0.06, "a": 0.003, "c": 0.06}),
    ],
)
def test_holm(raw: dict[str, float], expected: dict[str, float]) -> None:
    assert holm(raw) == pytest.approx(expected)
    assert list(holm(raw)) == list(raw)


def test_stars_have_sharp_borders() -> None:
    assert [stars(p) for p in (0.05, 0.049, 0.01, 0.0099, 0.001, 0.00099)] == ["", "*", "*", "**", "**", "***"]
