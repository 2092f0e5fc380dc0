"""Soft weights: the formula by loops, the properties that consistency weights have (C5), and their automatic scale."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.distillation.consistency import (
    base_weights,
    calibrate,
    excess_disagreement,
    fuse,
    soft_weights,
)
from components.distillation.teacher_scores import teacher_scores

ROWS = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])  # conf .22, .32, .50 (C2)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])


def test_weights_of_the_example_by_hand() -> None:
    raw = [w * math.exp(-conf / 0.1) for w, conf in zip([0.5, 0.3, 0.2], [0.22, 0.32, 0.50], strict=True)]
    decided = soft_weights(ROWS[:, None], WEIGHTS, 0.1)
    torch.testing.assert_close(decided.weights[:, 0], torch.tensor(raw) / sum(raw), atol=1e-5, rtol=0)
    assert decided.dropped.tolist() == [-1]
    assert excess_disagreement(ROWS[:, None]).item() == pytest.approx(0.28, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10_000), st.sampled_from([0.0, 1e-3, 0.3, float("inf")]))
def test_weights_are_a_distribution(teachers: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(teachers, 6, 8, generator=generator).mul(3).softmax(-1)
    weights = base_weights(torch.rand(teachers, generator=generator).tolist())
    decided = soft_weights(scores, weights, scale)
    torch.testing.assert_close(decided.weights.sum(0), torch.ones(6))
    assert (decided.weights >= 0).all()
    assert (fuse(scores, decided.weights).sum(1) - 1).abs().max() < 1e-5
    order = torch.randperm(teachers, generator=generator)
    permuted = soft_weights(scores[order], weights[order], scale).weights
    torch.testing.assert_close(permuted, decided.weights[order], atol=1e-3 if scale < 1e-2 else 1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0])
def test_teachers_that_agree_keep_their_base_weights(scale: float) -> None:
    same = torch.randn(1, 4, 7).softmax(-1).expand(3, -1, -1)
    torch.testing.assert_close(soft_weights(same, WEIGHTS, scale).weights, WEIGHTS[:, None].expand(3, 4))


def test_two_teachers_keep_their_base_weights() -> None:
    found = soft_weights(ROWS[1:, None], torch.tensor([0.7, 0.3]), 1e-3).weights[:, 0]
    torch.testing.assert_close(found, torch.tensor([0.7, 0.3]))


def test_a_teacher_without_base_weight_gets_none() -> None:
    assert soft_weights(ROWS[:, None], torch.tensor([0.0, 0.4, 0.6]), 0.1).weights[0].item() == 0


def test_an_infinite_scale_keeps_the_base_weights_and_a_tiny_one_the_most_agreeing_teacher() -> None:
    torch.testing.assert_close(soft_weights(ROWS[:, None], WEIGHTS, float("inf")).weights[:, 0], WEIGHTS)
    assert soft_weights(ROWS[:, None], WEIGHTS, 1e-6).weights[:, 0].tolist() == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_the_automatic_scale_finds_the_noise_teacher_whatever_the_temperature(temperature: float) -> None:
    """Disagreement moves by two orders of magnitude between these temperatures (C9); the weights hardly do."""
    torch.manual_seed(0)
    truth = torch.randn(512, 200)
    noisy = [truth + 0.5 * torch.randn_like(truth) for _ in range(3)]
    noisy[2] = noisy[2][:, torch.randperm(200)]
    scores = torch.stack([teacher_scores(logits, temperature) for logits in noisy])
    scale = calibrate(excess_disagreement(scores), 0.5)
    found = soft_weights(scores, torch.full((3,), 1 / 3), scale).weights.mean(dim=1)
    assert found[2] < 0.22
    assert found[:2].min() > 0.36
