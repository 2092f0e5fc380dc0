"""Rows of a student's item tables for items that training never saw, from the vectors that teachers read off content.

Ridge regression from the teachers' item vectors to the student's trained rows, in closed form: known and new items of
equal content have equal teacher vectors, so what holds for the known ones is the best guess for the new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

FOLDS: Final = 5
RIDGES: Final = tuple(float(10.0**power) for power in np.arange(-4, 2.5, 0.5))  # of the mean variance of a feature
EVIDENCE: Final = 10.0  # training interactions at which a row counts half as much as one of a very frequent item
RARE: Final = 0.25  # share of the trained items, the least frequent ones, which a new item is most like
ROWS: Final = 1 << 16  # items whose products are added up at once
MIN_ITEMS: Final = 2 * FOLDS


@dataclass(frozen=True)
class Moments:
    """Weighted sums over some items: all that ridge regression needs, and they can be added and subtracted.

    Attributes:
        weight: sum of the weights.
        x: (F,) sum of the features; ``y`` (D,) of the targets.
        xx: (F, F) sum of the products of the features; ``xy`` (F, D) of features and targets.
    """

    weight: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor

    @classmethod
    def of(cls, features: Tensor, targets: Tensor, weights: Tensor) -> Moments:
        """(n, F), (n, D), (n,) -> the sums, in float64."""
        total: Moments | None = None
        for begin in range(0, max(len(features), 1), ROWS):
            part = slice(begin, begin + ROWS)
            x, y, w = features[part].double(), targets[part].double(), weights[part].double()
            weighted = x * w[:, None]
            found = cls(w.sum(), weighted.sum(0), (y * w[:, None]).sum(0), weighted.t() @ x, weighted.t() @ y)
            total = found if total is None else total + found
        assert total is not None
        return total

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __sub__(self, other: Moments) -> Moments:
        return Moments(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Projection:
    """Teacher vectors -> rows of one item table.

    Ridge regression shrinks what it guesses, and a short row never wins a dot product. So the regression gives the
    direction, and the length is ``norm * (|guess| / typical) ** slope``: that of a rare item, more or less of it as far
    as the length of a guess was found to tell that of a row.

    Attributes:
        center: (F,) mean of the teachers' vectors.
        weight: (F, D) of the regression.
        mean: (D,) mean of the student's rows.
        norm: () median length of the rows of rare items.
        typical: () median length of guesses for rare items that were held out.
        slope: () between 0 and 1.
        bias: (b,) what a new item gets in the columns behind: the median of rare items. It is as popular as the least
            popular known items so far; a mean would put it beside items of a hundred interactions, and zero anywhere.
    """

    center: Tensor
    weight: Tensor
    mean: Tensor
    norm: Tensor
    typical: Tensor
    slope: Tensor
    bias: Tensor

    def rows(self, vectors: Tensor) -> Tensor:
        """(M, F) teacher vectors -> (M, D + b) float32 rows."""
        guess = self.mean + (vectors.double() - self.center) @ self.weight
        length = self.norm * (guess.norm(dim=1, keepdim=True) / self.typical).pow(self.slope)
        rows: Tensor = torch.cat([F.normalize(guess, dim=1) * length, self.bias.expand(len(vectors), -1)], dim=1)
        return rows.float()


@dataclass(frozen=True)
class Fit:
    """A projection and how well it did on items that it was not fitted on.

    Attributes:
        projection: fitted on all items.
        ridge: the chosen penalty, relative to the mean variance of a feature.
        cosine: weighted mean cosine of guessed and true rows of held-out items; NaN where a table is of biases alone.
        mean_cosine: the same of the mean row, which knows nothing of the item.
    """

    projection: Projection
    ridge: float
    cosine: float
    mean_cosine: float


def join_vectors(vectors: Sequence[Tensor]) -> Tensor:
    """(N, d_k) vectors of several teachers -> (N, sum of d_k), every teacher of equal weight.

    >>> join_vectors([torch.tensor([[3.0]]), torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0]])])
    tensor([[1.5000, 0.0000, 2.0000, 0.5000, 1.0000]])
    """
    return torch.cat([one.float() for one in vectors], dim=1) / math.sqrt(len(vectors))


def evidence(counts: NDArray[np.int64]) -> Tensor:
    """(N,) training interactions -> (N,) weights ``c / (c + EVIDENCE)``: a rarely seen row is mostly its random start.

    >>> evidence(np.array([0, 10, 90])).tolist()
    [0.0, 0.5, 0.9]
    """
    known = torch.from_numpy(counts.astype(np.float64))
    return known / (known + EVIDENCE)


def rarest(counts: NDArray[np.int64]) -> Tensor:
    """Indices of the share `RARE` of items that have the fewest interactions, at least one."""
    size = max(1, round(RARE * len(counts)))
    return torch.from_numpy(np.argsort(counts, kind="stable")[:size])


def ridge(moments: Moments, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
    """Minimize ``sum w |y - m - (x - c) W|^2 + penalty * v * |W|^2``, v the mean over features of ``sum w (x - c)^2``.

    Returns:
        c (F,), W (F, D) and m (D,).
    """
    center, mean = moments.x / moments.weight, moments.y / moments.weight
    xx = moments.xx - torch.outer(moments.x, center)
    xy = moments.xy - torch.outer(moments.x, mean)
    scale = torch.diagonal(xx).mean().clamp_min(torch.finfo(xx.dtype).tiny)
    system = xx + penalty * scale * torch.eye(len(xx), dtype=xx.dtype)
    return center, torch.linalg.solve(system, xy), mean


def fit(vectors: Tensor, table: Tensor, counts: NDArray[np.int64], biases: int = 0, seed: int = 0) -> Fit:
    """Learn the way from teacher vectors to the rows of a student's table.

    Args:
        vectors: (N, F) joined vectors of the teachers.
        table: (N, D + b) rows of the student.
        counts: (N,) training interactions; items without any have no trained row and are left out.
        biases: b.
        seed: of the folds.

    Raises:
        ValueError: numbers of rows that differ, or fewer than `MIN_ITEMS` trained items.
    """
    if not len(vectors) == len(table) == len(counts):
        raise ValueError(f"one row per item, got {len(vectors)} vectors, {len(table)} rows and {len(counts)} counts")
    trained = np.flatnonzero(counts > 0)
    if len(trained) < MIN_ITEMS:
        raise ValueError(f"expected at least {MIN_ITEMS} items with training interactions, got {len(trained)}")
    x, rows = vectors[trained].double(), table[trained].double()
    weights, rare = evidence(counts[trained]), rarest(counts[trained])
    border = rows.shape[1] - biases
    y, bias = rows[:, :border], rows[rare, border:].median(dim=0).values
    penalty, guesses, means = held_out(x, y, weights, seed)
    lengths = torch.stack([guesses.norm(dim=1), y.norm(dim=1)])  # (2, n) of guesses and of rows
    norm, typical = lengths[1, rare].median(), lengths[0, rare].median()
    center, weight, mean = ridge(Moments.of(x, y, weights), penalty)
    projection = Projection(center, weight, mean, norm, typical, length_slope(lengths, weights), bias)
    cosines = [float("nan")] * 2 if not border else [_agreement(one, y, weights) for one in (guesses, means)]
    return Fit(projection, penalty, cosines[0], cosines[1])


def held_out(x: Tensor, y: Tensor, weights: Tensor, seed: int = 0) -> tuple[float, Tensor, Tensor]:
    """The penalty whose guesses for held-out items agree best with their rows, these guesses, and the mean rows.

    The moments of a fold's training items are those of all items less its own. Agreement is the weighted mean cosine;
    lengths are set apart.

    Args:
        x: (n, F) teachers' vectors.
        y: (n, D) rows.
        weights: (n,).
        seed: of the folds.

    Returns:
        One of `RIDGES`, (n, D) guesses for every item by the regression on the other folds, and (n, D) their mean rows.
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    folds = [order[start::FOLDS] for start in range(FOLDS)]
    parts = [Moments.of(x[fold], y[fold], weights[fold]) for fold in folds]
    total = parts[0]
    for part in parts[1:]:
        total = total + part

    def guess(penalty: float) -> tuple[Tensor, Tensor]:
        guesses, means = torch.empty_like(y), torch.empty_like(y)
        for fold, part in zip(folds, parts, strict=True):
            center, weight, mean = ridge(total - part, penalty)
            guesses[fold], means[fold] = mean + (x[fold] - center) @ weight, mean
        return guesses, means

    best = max(RIDGES, key=lambda penalty: _agreement(guess(penalty)[0], y, weights))
    return best, *guess(best)


def length_slope(lengths: Tensor, weights: Tensor) -> Tensor:
    """() slope of the log length of rows on that of guesses by weighted least squares, cut to 0..1.

    Args:
        lengths: (2, n) of guesses and of rows.
        weights: (n,).
    """
    logs = lengths.clamp_min(torch.finfo(lengths.dtype).tiny).log()
    x, y = logs - (logs * weights).sum(dim=1, keepdim=True) / weights.sum()
    spread = (weights * x.square()).sum()
    slope: Tensor = (weights * x * y).sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny)
    return slope.clamp(0.0, 1.0)


def _agreement(guess: Tensor, truth: Tensor, weights: Tensor) -> float:
    """Weighted mean cosine."""
    return float((F.cosine_similarity(guess, truth, dim=1) * weights).sum() / weights.sum())
