from __future__ import annotations

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from components.distillation import new_items
from components.distillation.new_items import Moments, evidence, fit, held_out, length_slope, ridge

ITEMS, NEW, WIDTH, DIM = 300, 60, 12, 6


def world(noise: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Vectors, rows that are a linear function of them plus noise, and counts; the last `NEW` items are to be new."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ITEMS + NEW, WIDTH, generator=generator)
    rows = x @ torch.randn(WIDTH, DIM, generator=generator) + 2.0
    rows += noise * torch.randn(rows.shape, generator=generator)
    return x, rows, np.random.default_rng(seed).integers(1, 50, ITEMS + NEW)


def test_examples() -> None:
    assert doctest.testmod(new_items).failed == 0


def test_a_planted_relation_is_recovered_and_shuffled_vectors_give_the_mean_row() -> None:
    x, rows, counts = world()
    known, new = slice(ITEMS), slice(ITEMS, None)
    found = fit(x[known], rows[known], counts[known])
    assert F.cosine_similarity(found.projection.rows(x[new]), rows[new]).mean() > 0.99
    assert found.cosine > 0.99
    shuffled = x[torch.randperm(ITEMS + NEW, generator=torch.Generator().manual_seed(1))]
    nothing = fit(shuffled[known], rows[known], counts[known])
    assert F.cosine_similarity(nothing.projection.rows(shuffled[new]), rows[new]).mean() < 0.7
    assert nothing.cosine == pytest.approx(nothing.mean_cosine, abs=0.03)
    assert nothing.ridge == max(new_items.RIDGES)


@pytest.mark.parametrize("rows_at_once", [7, 1 << 16])
def test_ridge_equals_weighted_least_squares_with_added_rows(
    rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain form: rows times the roots of their weights, and a row ``sqrt(penalty)`` per feature that wants 0."""
    monkeypatch.setattr(new_items, "ROWS", rows_at_once)
    x, rows, counts = world(noise=1.0)
    weights = evidence(counts)
    center, weight, mean = ridge(Moments.of(x, rows, weights), 0.3)
    a, b, w = (value.double().numpy() for value in (x, rows, weights))
    c, m = np.average(a, axis=0, weights=w), np.average(b, axis=0, weights=w)
    scaled = np.sqrt(w)[:, None] * (a - c)
    penalty = 0.3 * (scaled**2).sum() / WIDTH
    design = np.concatenate([scaled, math.sqrt(penalty) * np.eye(WIDTH)])
    wanted = np.concatenate([np.sqrt(w)[:, None] * (b - m), np.zeros((WIDTH, DIM))])
    expected = np.linalg.lstsq(design, wanted, rcond=None)[0]
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(center.numpy(), c, rtol=1e-9)
    np.testing.assert_allclose(mean.numpy(), m, rtol=1e-9)


def test_a_held_out_guess_never_saw_its_own_row() -> None:
    x, rows, counts = world(noise=1.0)
    x, rows, weights = x.double(), rows.double(), evidence(counts)
    penalty, guesses, means = held_out(x, rows, weights)
    order = np.random.default_rng(0).permutation(len(x))
    fold = torch.from_numpy(order[2 :: new_items.FOLDS])
    others = torch.from_numpy(np.setdiff1d(order, fold.numpy()))
    center, weight, mean = ridge(Moments.of(x[others], rows[others], weights[others]), penalty)
    torch.testing.assert_close(guesses[fold], mean + (x[fold] - center) @ weight)
    torch.testing.assert_close(means[fold], mean.expand(len(fold), -1))


def test_the_penalty_grows_with_the_noise() -> None:
    quiet, loud = (held_out(*(v.double() for v in world(noise)[:2]), evidence(world()[2]))[0] for noise in (0.01, 30.0))
    assert quiet < loud


def test_items_without_training_have_no_say() -> None:
    x, rows, counts = world()
    counts[5:40] = 0
    spoiled = rows.clone()
    spoiled[5:40] = 1e6
    kept, same = fit(x, rows, counts), fit(x, spoiled, counts)
    torch.testing.assert_close(kept.projection.rows(x), same.projection.rows(x), rtol=0, atol=0)


def test_new_rows_are_as_long_as_those_of_rare_items() -> None:
    """Rows of half the length in the rarest quarter; the shrunken guesses are drawn out to that."""
    x, rows, counts = world(noise=1.0)
    rows = F.normalize(rows - 2.0, dim=1)
    rare = new_items.rarest(counts)
    rows[rare] *= 0.5
    projection = fit(x, rows, counts).projection
    assert projection.rows(x[rare]).norm(dim=1).median() == pytest.approx(0.5, rel=0.1)
    assert projection.norm == pytest.approx(0.5)


@pytest.mark.parametrize(("power", "slope"), [(0.0, 0.0), (0.4, 0.4), (1.0, 1.0), (3.0, 1.0), (-1.0, 0.0)])
def test_length_follows_the_guess_as_far_as_it_tells(power: float, slope: float) -> None:
    guesses = torch.rand(50, dtype=torch.float64) + 0.5
    lengths = torch.stack([guesses, 3.0 * guesses**power])
    assert float(length_slope(lengths, torch.ones(50, dtype=torch.float64))) == pytest.approx(slope, abs=1e-9)


def test_the_slope_says_how_far_lengths_differ() -> None:
    x, rows, counts = world(noise=1.0)
    projection = fit(x, rows, counts).projection
    level, full = (replace(projection, slope=torch.tensor(slope, dtype=torch.float64)) for slope in (0.0, 1.0))
    torch.testing.assert_close(level.rows(x).norm(dim=1), projection.norm.float().expand(len(x)))
    ratio = full.rows(x).norm(dim=1) / projection.norm
    assert ratio.std() > 0.1
    half = replace(projection, slope=torch.tensor(0.5, dtype=torch.float64)).rows(x).norm(dim=1) / projection.norm
    torch.testing.assert_close(half, ratio.sqrt().to(half))


def test_equal_guesses_have_no_slope() -> None:
    assert float(length_slope(torch.ones(2, 5, dtype=torch.float64), torch.ones(5, dtype=torch.float64))) == 0.0


def test_a_bias_is_that_of_the_rare() -> None:
    x, rows, counts = world()
    bias = torch.from_numpy(counts.astype(np.float32))[:, None]
    found = fit(x, torch.cat([rows, bias], dim=1), counts, biases=1)
    new = found.projection.rows(x)
    assert new.shape == (ITEMS + NEW, DIM + 1)
    assert set(new[:, -1].tolist()) == {float(bias[new_items.rarest(counts)].median())}
    torch.testing.assert_close(new[:, :-1], fit(x, rows, counts).projection.rows(x))


def test_a_table_of_biases_alone() -> None:
    x, _, counts = world()
    found = fit(x, torch.from_numpy(counts.astype(np.float32))[:, None], counts, biases=1)
    assert found.projection.rows(x[:3]).tolist() == [[float(found.projection.bias)]] * 3
    assert math.isnan(found.cosine)


def test_one_item_alone_gets_the_row_that_it_gets_among_others() -> None:
    x, rows, counts = world()
    projection = fit(x, rows, counts).projection
    torch.testing.assert_close(projection.rows(x[7:8]), projection.rows(x)[7:8])


def test_what_does_not_fit_is_said() -> None:
    x, rows, counts = world()
    with pytest.raises(ValueError, match="got 359 vectors, 360 rows and 360 counts"):
        fit(x[1:], rows, counts)
    counts[3:] = 0
    with pytest.raises(ValueError, match="at least 10 items with training interactions, got 3"):
        fit(x, rows, counts)
