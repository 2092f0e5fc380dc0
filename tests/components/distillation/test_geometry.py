"""Item geometry against a slow, plain reference; its gradient, its edges, and what it may not touch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from components.distillation.geometry import fused_similarities, geometry_loss, sample_items, similarity_logits

TEMPERATURE = 0.2


def vectors(items: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(items, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_similarities(own: Tensor) -> list[dict[int, float]]:
    """Per item the distribution over the others, by loops."""
    found = []
    for i, one in enumerate(own.tolist()):
        cosines = {
            j: sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
            for j, other in enumerate(own.tolist())
            if j != i
        }
        total = sum(math.exp(value / TEMPERATURE) for value in cosines.values())
        found.append({j: math.exp(value / TEMPERATURE) / total for j, value in cosines.items()})
    return found


def plain_loss(student: Tensor, teachers: list[Tensor], weights: list[float], direction: str) -> float:
    p = plain_similarities(student)
    known = [plain_similarities(teacher) for teacher in teachers]
    rows = []
    for i in range(len(student)):
        q = {j: sum(w * rows[i][j] for w, rows in zip(weights, known, strict=True)) for j in p[i]}
        first, second = (p[i], q) if direction == "p||q" else (q, p[i])
        rows.append(sum(first[j] * math.log(first[j] / second[j]) for j in q))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("direction", ["p||q", "q||p"])
def test_loss_is_that_of_the_plain_loops(direction: str) -> None:
    student, teachers, weights = vectors(7, 4), [vectors(7, 6, 1), vectors(7, 3, 2)], [0.7, 0.3]
    fused = fused_similarities(teachers, torch.tensor(weights, dtype=torch.float64), TEMPERATURE)
    found = geometry_loss(student, fused, TEMPERATURE, direction)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(plain_loss(student, teachers, weights, direction), rel=1e-9)
    assert found.item() > 0
    torch.testing.assert_close(fused.sum(1), torch.ones(7, dtype=torch.float64))


@pytest.mark.parametrize("direction", ["p||q", "q||p"])
def test_no_gradient_where_the_geometry_is_the_teachers(direction: str) -> None:
    """Only angles count: a rotated, stretched copy in more dimensions has the same geometry."""
    teacher = vectors(9, 4)
    rotation = torch.linalg.qr(vectors(6, 6, 3))[0][:4]  # (4, 6), orthonormal rows
    student = (teacher @ rotation * torch.linspace(0.5, 3.0, 9, dtype=torch.float64)[:, None]).requires_grad_()
    fused = fused_similarities([teacher], torch.ones(1), TEMPERATURE)
    loss = geometry_loss(student, fused, TEMPERATURE, direction)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


@pytest.mark.parametrize("direction", ["p||q", "q||p"])
def test_gradient_is_the_numerical_one(direction: str) -> None:
    fused = fused_similarities([vectors(5, 3, 1)], torch.ones(1), TEMPERATURE)
    student = vectors(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: geometry_loss(v, fused, TEMPERATURE, direction), student)  # type: ignore[arg-type]


def test_teachers_carry_no_gradient() -> None:
    teacher = vectors(5, 3).requires_grad_()
    assert not fused_similarities([teacher], torch.ones(1), TEMPERATURE).requires_grad


def test_descent_finds_the_teachers_geometry_and_not_a_shuffled_one() -> None:
    teacher = vectors(30, 4).float()
    shuffled = teacher[torch.randperm(30, generator=torch.Generator().manual_seed(1))]
    truth = similarity_logits(teacher, 1.0).flatten()
    found = {}
    for name, followed in (("teacher", teacher), ("shuffled", shuffled)):
        student = vectors(30, 8, 5).float().requires_grad_()
        optimizer = torch.optim.Adam([student], lr=0.05)
        fused = fused_similarities([followed], torch.ones(1), TEMPERATURE)
        for _ in range(200):
            optimizer.zero_grad()
            geometry_loss(student, fused, TEMPERATURE).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        own = similarity_logits(student.detach(), 1.0).flatten()
        found[name] = float(np.corrcoef(truth.numpy(), own.numpy())[0, 1])
    assert found["teacher"] > 0.95
    assert abs(found["shuffled"]) < 0.2


def test_one_item_or_none_costs_nothing() -> None:
    for items in (0, 1):
        student = torch.randn(items, 4, requires_grad=True)
        fused = fused_similarities([torch.randn(items, 3)], torch.ones(1), TEMPERATURE)
        loss = geometry_loss(student, fused, TEMPERATURE)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0


def test_an_item_without_a_vector_resembles_all_others_alike() -> None:
    own = vectors(4, 3)
    own[2] = 0.0
    fused = fused_similarities([own], torch.ones(1), TEMPERATURE)
    torch.testing.assert_close(fused[2], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert torch.isfinite(geometry_loss(vectors(4, 3, 1), fused, TEMPERATURE))


def test_items_are_distinct_and_at_most_so_many() -> None:
    assert sample_items(torch.tensor([7, 3, 7, 9])).tolist() == [3, 7, 9]
    torch.manual_seed(0)
    first = sample_items(torch.arange(1, 100), most=10)
    assert len(set(first.tolist())) == 10
    assert first.tolist() == sorted(first.tolist())
    assert first.tolist() != sample_items(torch.arange(1, 100), most=10).tolist()
    torch.manual_seed(0)
    assert sample_items(torch.arange(1, 100), most=10).tolist() == first.tolist()
