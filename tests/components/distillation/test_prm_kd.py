"""The checks of PRM-KD, C1 to C9, by their numbers; C10 is in test_end_to_end.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from components.distillation.consistency import base_weights, calibrate, consistency_weights, disagreement, fuse
from components.distillation.losses import kd_loss, unique_candidates
from components.distillation.teacher_scores import TeacherCache, normalize, teacher_scores

ROWS = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])
STUDENT = torch.tensor([[1.0, 0.0, 0.0, -1.0]])


def close(found: Tensor, expected: list[float], tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [0.490629, 0.180492, 0.328879]),
        (0.5, [0.631048, 0.085403, 0.283548]),
        (0.1, [0.981970, 0.0000446, 0.017985]),
    ],
)
def test_c1_temperature(temperature: float, expected: list[float]) -> None:
    items = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    cache = TeacherCache([torch.tensor([[1.0, 0.0]])], [items], [temperature])
    close(cache.scores(torch.tensor([0]), torch.tensor([1, 2, 3]))[0, 0], expected)


def test_c2_disagreement_and_its_invariant() -> None:
    conf = disagreement(ROWS[:, None])
    close(conf[:, 0], [0.22, 0.32, 0.50])
    assert conf.sum().item() == pytest.approx(2 * (0.02 + 0.20 + 0.30))


@pytest.mark.parametrize(
    ("epsilon", "dropped", "weights", "fused"),
    [
        (0.1, 2, [0.6, 0.4, 0.0], [0.44, 0.30, 0.16, 0.10]),
        (0.6, -1, [0.5, 0.3, 0.2], [0.37, 0.28, 0.19, 0.16]),
        (float("inf"), -1, [0.5, 0.3, 0.2], [0.37, 0.28, 0.19, 0.16]),
        (0.0, 2, [0.6, 0.4, 0.0], [0.44, 0.30, 0.16, 0.10]),
    ],
)
def test_c2_weights_and_fusion(epsilon: float, dropped: int, weights: list[float], fused: list[float]) -> None:
    decided = consistency_weights(ROWS[:, None], WEIGHTS, epsilon)
    assert decided.dropped.tolist() == [dropped]
    close(decided.weights[:, 0], weights)
    close(fuse(ROWS[:, None], decided.weights)[0], fused)


def test_c2_the_threshold_itself_triggers() -> None:
    rows = ROWS.double()[:, None]
    at = disagreement(rows).amax().item()
    assert at == pytest.approx(0.5)
    assert consistency_weights(rows, WEIGHTS, at).dropped.tolist() == [2]
    assert consistency_weights(rows, WEIGHTS, at + 1e-9).dropped.tolist() == [-1]


def test_c3_divergences() -> None:
    close(STUDENT.softmax(1)[0], [0.534447, 0.196612, 0.196612, 0.072329])
    first, second = torch.tensor([[0.44, 0.30, 0.16, 0.10]]), torch.tensor([[0.37, 0.28, 0.19, 0.16]])
    assert kd_loss(STUDENT, first, "p||q").item() == pytest.approx(0.0379317, abs=1e-6)
    assert kd_loss(STUDENT, first, "q||p").item() == pytest.approx(0.0406286, abs=1e-6)
    assert kd_loss(STUDENT, second, "p||q").item() == pytest.approx(0.0763180, abs=1e-6)
    assert kd_loss(STUDENT, STUDENT.softmax(1)).item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("direction", ["p||q", "q||p"])
def test_c3_never_negative(direction: str) -> None:
    torch.manual_seed(0)
    for row in range(50):
        scores, fused = torch.randn(1, 9), torch.randn(1, 9).softmax(1)
        assert kd_loss(scores, fused, direction).item() >= 0, row  # type: ignore[arg-type]


def test_c4_odds_reading() -> None:
    expected = [
        [0.457766, 0.294278, 0.171662, 0.076294],
        [0.605769, 0.259615, 0.067308, 0.067308],
        [0.076294, 0.171662, 0.294278, 0.457766],
    ]
    odds = teacher_scores(ROWS.log(), 1.0, "odds")
    torch.testing.assert_close(odds, ROWS / (1 - ROWS))
    torch.testing.assert_close(normalize(odds), torch.tensor(expected), atol=1e-6, rtol=0)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.3, float("inf")]))
def test_c5_weights_are_a_distribution(teachers: int, seed: int, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(teachers, 6, 8, generator=generator).mul(3).softmax(-1)
    weights = base_weights(torch.rand(teachers, generator=generator).tolist())
    decided = consistency_weights(scores, weights, epsilon)
    torch.testing.assert_close(decided.weights.sum(0), torch.ones(6))
    assert (decided.weights >= 0).all()
    assert (fuse(scores, decided.weights).sum(1) - 1).abs().max() < 1e-5
    plain = torch.stack([sum((scores[k] - other).square().sum(-1) for other in scores) for k in range(teachers)])
    torch.testing.assert_close(decided.disagreement, plain, atol=1e-5, rtol=1e-4)


def test_c5_identical_teachers_are_never_dropped() -> None:
    same = torch.randn(1, 4, 7).softmax(-1).expand(3, -1, -1)
    decided = consistency_weights(same, WEIGHTS, 1e-5)
    assert (decided.dropped == -1).all()
    assert decided.disagreement.max() < 1e-6


def test_c5_permuting_teachers_permutes_the_weights() -> None:
    torch.manual_seed(1)
    scores, order = torch.randn(3, 5, 6).softmax(-1), [2, 0, 1]
    decided, permuted = (
        consistency_weights(s, w, 0.01) for s, w in ((scores, WEIGHTS), (scores[order], WEIGHTS[order]))
    )
    torch.testing.assert_close(permuted.weights, decided.weights[order])


def test_c5_a_constant_on_one_teachers_logits_changes_nothing() -> None:
    logits = torch.randn(4, 6)
    torch.testing.assert_close(teacher_scores(logits + 3.0, 0.5), teacher_scores(logits, 0.5))


def test_c5_two_teachers_keep_their_weights() -> None:
    decided = consistency_weights(ROWS[1:, None], torch.tensor([0.7, 0.3]), 0.0)
    assert decided.dropped.tolist() == [-1]
    close(decided.weights[:, 0], [0.7, 0.3])


@pytest.mark.parametrize("direction", ["p||q", "q||p"])
def test_c6_no_gradient_at_agreement_and_none_to_teachers(direction: str) -> None:
    scores = torch.randn(3, 5, requires_grad=True)
    kd_loss(scores, scores.detach().softmax(1), direction).backward()  # type: ignore[arg-type]
    assert scores.grad is not None
    assert scores.grad.abs().max() < 1e-6
    cache = TeacherCache([torch.randn(4, 2, requires_grad=True)], [torch.randn(6, 2, requires_grad=True)], [1.0])
    assert not cache.scores(torch.tensor([0, 1]), torch.tensor([1, 2])).requires_grad


@pytest.mark.parametrize("direction", ["p||q", "q||p"])
def test_gradient_is_that_of_the_plain_formula(direction: str) -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    fused = torch.randn(4, 7, dtype=torch.float64).softmax(1)
    log_p = scores.log_softmax(1)
    rows = (log_p.exp() * (log_p - fused.log())) if direction == "p||q" else fused * (fused.log() - log_p)
    plain, ours = rows.sum(1).mean(), kd_loss(scores, fused, direction)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, plain)
    expected, found = (torch.autograd.grad(2.0 * loss, scores)[0] for loss in (plain, ours))
    torch.testing.assert_close(found, expected)


def test_c8_duplicate_targets() -> None:
    candidates, columns = unique_candidates(torch.tensor([7, 7, 3]))
    assert (candidates.tolist(), columns.tolist()) == ([3, 7], [1, 1, 0])
    items = torch.zeros(8, 1)
    cache = TeacherCache([torch.ones(3, 1)], [items], [1.0])
    literal = cache.scores(torch.arange(3), torch.tensor([7, 7, 3]))[0]
    assert literal.shape == (3, 3)
    close(literal[0, :2], [1 / 3, 1 / 3])  # item 7 stands in two columns
    close(cache.scores(torch.arange(3), candidates)[0, 0], [0.5, 0.5])


@pytest.mark.parametrize(("temperature", "rate", "conf"), [(2.0, 1.0, 0.0065), (0.5, 0.85, 0.448)])
def test_c9_the_noise_teacher_disagrees_most(temperature: float, rate: float, conf: float) -> None:
    torch.manual_seed(0)
    truth = torch.randn(512, 200)
    noisy = [truth + 0.5 * torch.randn_like(truth) for _ in range(3)]
    noisy[2] = noisy[2][:, torch.randperm(200)]
    scores = torch.stack([teacher_scores(logits, temperature) for logits in noisy])
    found = disagreement(scores)
    worst = (found.argmax(0) == 2).float().mean().item()
    assert worst == pytest.approx(rate, abs=0.05)
    assert found[2].mean().item() == pytest.approx(conf, rel=0.15)
    if temperature == 2.0:
        assert worst > 0.95


def test_calibration_is_the_quantile_of_the_largest() -> None:
    assert calibrate(torch.arange(11.0)) == pytest.approx(8.0)
    assert calibrate(torch.zeros(0)) == float("inf")


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        base_weights([0.1, -0.2])
    with pytest.raises(ValueError, match="states have width 3, items 2"):
        TeacherCache([torch.zeros(1, 3)], [torch.zeros(2, 2)], [1.0])


def test_minmax_keeps_the_divergence_finite() -> None:
    fused = normalize(torch.tensor([[0.0, 1.0, 3.0]]), "minmax")
    assert fused.min() > 0
    assert torch.isfinite(kd_loss(torch.zeros(1, 3), fused))
