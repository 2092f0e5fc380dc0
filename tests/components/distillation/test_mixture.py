"""Learned base weights: the optimum, its conditions, and that a teacher who guesses gets next to nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from components.distillation.mixture import mixture_weights, target_log_likelihoods
from components.distillation.teacher_scores import TeacherCache
from tests.worlds import random_sequences, sequences


def likelihoods(teachers: int, cases: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(teachers, cases, generator=generator, dtype=torch.float64).pow(3).clamp_min(1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_those_of_a_general_optimizer(seed: int) -> None:
    values = likelihoods(4, 60, seed)

    def loss(logits: np.ndarray) -> float:
        weights = np.exp(logits - logits.max())
        return -float(np.log(weights / weights.sum() @ values.numpy()).mean())

    best = minimize(loss, np.zeros(4), method="L-BFGS-B")
    weights = mixture_weights(values.log())
    assert -float((weights @ values).log().mean()) <= best.fun + 1e-6
    torch.testing.assert_close(weights, torch.from_numpy(best.x).softmax(0), atol=0.01, rtol=0)


def test_the_optimum_satisfies_its_conditions() -> None:
    """Of a concave function on the simplex: the gradient is 1 where a weight is positive, at most 1 elsewhere."""
    values = likelihoods(5, 200, 7)
    weights = mixture_weights(values.log(), iterations=20_000, tolerance=1e-12)
    gradient = (values / (weights @ values)).mean(dim=1)
    assert weights.sum().item() == pytest.approx(1.0)
    assert (gradient <= 1 + 1e-4).all()
    torch.testing.assert_close(gradient[weights > 1e-3], torch.ones_like(gradient[weights > 1e-3]), atol=1e-4, rtol=0)


def test_no_step_lowers_the_likelihood_of_the_targets() -> None:
    values = likelihoods(3, 50)
    reached = [float((mixture_weights(values.log(), n, 0.0) @ values).log().mean()) for n in range(12)]
    assert reached == sorted(reached)
    assert reached[-1] > reached[0]


def test_permuting_teachers_permutes_the_weights_and_equal_ones_share() -> None:
    values, order = likelihoods(4, 80), [2, 0, 3, 1]
    torch.testing.assert_close(mixture_weights(values[order].log()), mixture_weights(values.log())[order])
    same = values[:1].expand(3, -1)
    torch.testing.assert_close(mixture_weights(same.log()), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(K, n >= 1\) finite log-likelihoods, got shape \(2, 0\)"):
        mixture_weights(torch.zeros(2, 0))
    with pytest.raises(ValueError, match="finite"):
        mixture_weights(torch.tensor([[0.0, -torch.inf]]))


def test_likelihoods_are_those_of_the_targets_one_by_one() -> None:
    data = random_sequences(30, 12, 8)
    cases = data.cases("valid")
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(len(cases), d, generator=generator) for d in (3, 5)]
    items = [torch.randn(13, d, generator=generator) for d in (3, 5)]
    found = target_log_likelihoods(TeacherCache(states, items, [0.5, 2.0]), cases)
    for k, temperature in enumerate((0.5, 2.0)):
        for case, target in enumerate(cases.targets.tolist()):
            scores = (items[k][1:] @ states[k][case] / temperature).log_softmax(0)
            assert found[k, case].item() == pytest.approx(scores[target - 1].item(), abs=1e-4)


def test_seen_items_take_no_probability_where_they_are_dropped() -> None:
    cases = sequences([[1, 2, 3, 4, 5], [3, 3, 1, 3, 2]]).cases("valid")  # targets 4 and 3, which user 2 has seen
    cache = TeacherCache([torch.zeros(2, 1)], [torch.zeros(7, 1)], [1.0])  # all six items alike
    kept, dropped = (target_log_likelihoods(cache, cases, seen).exp()[0].tolist() for seen in ("keep", "drop"))  # type: ignore[arg-type]
    assert kept == pytest.approx([1 / 6, 1 / 6])
    assert dropped == pytest.approx([1 / 3, 1 / 5])  # without 1, 2, 3; without 1: its own target stays


def test_cases_are_taken_evenly_up_to_a_limit() -> None:
    data = random_sequences(30, 12, 8)
    cases = data.cases("valid")
    cache = TeacherCache([torch.randn(len(cases), 3)], [torch.randn(13, 3)], [1.0])
    every, some = target_log_likelihoods(cache, cases), target_log_likelihoods(cache, cases, most=10)
    torch.testing.assert_close(some, every[:, :: -(-len(cases) // 10)])
    assert some.shape[1] <= 10
