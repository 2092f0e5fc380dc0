from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.release.figures import EDGES, Figures, Tally, total
from serve.release.gate import enough, failure
from serve.release.policy import Policy

POLICY = Policy(min_comparisons=50)


def tally(requests: int = 0, errors: int = 0, seconds: float = 0.001) -> Tally:
    made = Tally()
    for number in range(requests):
        made.add(seconds, "boom" if number < errors else "")
    return made


def figures(**changed: object) -> Figures:
    """Two models that are alike."""
    alike = {
        "live": tally(100),
        "live_incumbent": tally(100),
        "candidate": tally(100),
        "incumbent": tally(100),
        "comparisons": 100,
        "overlap": 90.0,
        "cases": 100,
        "quality": (10.0, 10.0),
        "excess": (1.0, 5.0),
        "known": (300, 300),
    }
    return Figures.model_validate(alike | changed)


def test_a_candidate_like_the_incumbent_passes() -> None:
    assert failure(POLICY, figures()) == ""
    assert enough(POLICY, figures())


def test_nothing_measured_is_no_failure_and_not_enough() -> None:
    assert failure(POLICY, Figures()) == ""
    assert not enough(POLICY, Figures())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"live": tally(100, errors=5)}, "5 of 100 live requests failed"),
        ({"candidate": tally(100, errors=3)}, "3 of 100 recorded requests failed"),
        ({"candidate": tally(100, seconds=0.02)}, "it is slow"),
        ({"candidate": tally(5, seconds=0.5), "incumbent": tally(5)}, "it is slow"),
        ({"known": (300, 200)}, "it knows 200 of the 300 items"),
        ({"overlap": 1.0}, "share 1.0% of the incumbent's items"),
        ({"quality": (30.0, 5.0), "excess": (-22.0, 20.0)}, "it ranks badly"),
    ],
)
def test_each_bound_is_held(changed: dict[str, object], said: str) -> None:
    assert said in failure(POLICY, figures(**changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"live": tally(100, errors=2)},  # a couple of failures is no rate
        {"live": tally(100, errors=5), "live_incumbent": tally(100, errors=4)},  # the incumbent fails as often
        {"candidate": tally(100, seconds=0.0025)},  # slower, by less than anybody notices
        {"candidate": tally(4, seconds=0.5), "incumbent": tally(4)},  # too few to say
        {"candidate": tally(25) + tally(3, seconds=0.1), "incumbent": tally(28)},  # a few bad moments
        {"candidate": tally(100, seconds=0.02), "incumbent": tally(93) + tally(7, seconds=0.1)},  # both have them
        {"cases": 20, "quality": (6.0, 1.0), "excess": (-4.4, 4.0)},  # too few to say
        {"quality": (10.0, 8.9), "excess": (-0.1, 30.0)},  # below, not significantly
        {"comparisons": 10, "overlap": 0.0},
    ],
)
def test_noise_is_let_through(changed: dict[str, object]) -> None:
    assert failure(POLICY, figures(**changed)) == ""


def test_the_last_error_is_named() -> None:
    assert "boom" in failure(POLICY, figures(live=tally(10, errors=10)))


@given(st.lists(st.floats(1e-4, 50), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_quantiles_are_within_a_bucket(seconds: list[float], share: float) -> None:
    made = Tally()
    for one in seconds:
        made.add(one)
    exact = sorted(seconds)[max(0, math.ceil(share * len(seconds) - 1e-9) - 1)]
    assert exact <= made.quantile(share) * (1 + 1e-9)
    assert made.quantile(share) <= max(exact * (EDGES[1] / EDGES[0]) * (1 + 1e-9), EDGES[0])


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_replicas_add_up(requests: list[int]) -> None:
    parts = [Figures(live=tally(count, errors=count // 2), comparisons=count, overlap=count / 2) for count in requests]
    whole = total(parts)
    assert whole.live.requests == sum(requests)
    assert whole.live.errors == sum(count // 2 for count in requests)
    assert sum(whole.live.counts) == sum(requests)
    assert whole.comparisons == sum(requests)


@pytest.mark.parametrize("shares", [[0.5, 0.05], [0.0], [1.0], [0.1, 0.1]])
def test_shares_must_rise(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="expected shares that rise"):
        Policy.model_validate({"shares": shares})
