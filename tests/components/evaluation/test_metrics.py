from __future__ import annotations

import doctest
import math
import warnings

import numpy as np
import pytest

from components.errors import UnknownNameError
from components.evaluation import metrics
from components.evaluation.metrics import METRICS, mean_metrics, metric_values, ndcg


def plain_metric(name: str, position: int, cutoff: int) -> float:
    """A list with one relevant item, evaluated as the textbooks do: a loop over the places."""
    gains = [1.0 if place == position else 0.0 for place in range(1, cutoff + 1)]
    if name == "recall":
        return sum(gains)
    if name == "mrr":
        return next((1 / place for place, gain in enumerate(gains, start=1) if gain), 0.0)
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(metrics).failed == 0
    assert doctest.testmod(metrics).attempted >= 7


@pytest.mark.parametrize(("position", "expected"), [(1, 1.0), (2, 0.63093), (5, 0.38685), (11, 0.0)])
def test_ndcg_golden(position: int, expected: float) -> None:
    assert ndcg(np.array([position]), 10)[0] == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("cutoff", [1, 5, 10, 20])
@pytest.mark.parametrize("name", sorted(METRICS))
def test_equals_the_slow_reference(name: str, cutoff: int) -> None:
    positions = np.arange(1, 40)
    expected = [plain_metric(name, int(position), cutoff) for position in positions]
    np.testing.assert_allclose(metric_values(positions, f"{name}@{cutoff}"), expected, rtol=1e-12)


def test_equals_ranx() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ranx import Qrels, Run, evaluate
    generator = np.random.default_rng(0)
    scores = generator.random((60, 30))
    targets = generator.integers(0, 30, size=60)
    positions = 1 + (scores > scores[np.arange(60), targets][:, None]).sum(1)
    qrels = Qrels({f"u{user}": {f"i{targets[user]}": 1} for user in range(60)})
    run = Run({f"u{user}": {f"i{item}": float(scores[user, item]) for item in range(30)} for user in range(60)})
    ours = mean_metrics(positions, (5, 10, 20))
    names = {
        f"{name}@{k}": f"{oracle}@{k}"
        for name, oracle in (("recall", "recall"), ("ndcg", "ndcg"), ("mrr", "mrr"))
        for k in (5, 10, 20)
    }
    theirs = evaluate(qrels, run, list(names.values()))
    for name, oracle in names.items():
        assert ours[name] == pytest.approx(float(theirs[oracle]), abs=1e-9), name


def test_no_user_has_no_mean() -> None:
    assert mean_metrics(np.array([], dtype=np.int64)) == {}


@pytest.mark.parametrize("name", ["ndgc@10", "ndcg", "ndcg@x", "ndcg@0", "@5"])
def test_unknown_metric(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown metric"):
        metric_values(np.array([1]), name)
