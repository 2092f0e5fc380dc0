"""Ranking losses as pure functions of states, item vectors and targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Logits held at once. On a CPU 2 MiB in fp32, about what a core keeps in its level-2 cache; a GPU wants large products.
CHUNK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 26}


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Softmax cross-entropy of ``scale * states @ table.T``; gradients are made chunk by chunk in the forward pass.

    Holding the gradients of states (P, D) and table (N, D) instead of the logits (P, N) costs no second matrix product,
    and memory does not grow with P x N. All chunks share one buffer: a fresh one for each would cost more in page
    faults than the product that fills it. A row is divided by its sum in the factors (c, D), never in (c, N).
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, targets: Tensor, scale: float, chunk: int) -> Tensor:
        # Under autocast the products run in the lower precision; sums and the table's gradient stay in fp32.
        kind = _product_dtype(states)
        wide = torch.promote_types(kind, torch.float32)
        vectors, low = table.to(kind), states.to(kind)
        products = torch.empty(min(chunk, len(states)), len(table), dtype=kind, device=states.device)
        grad_states = torch.empty_like(states)
        grad_table = torch.zeros(states.shape[1], len(table), dtype=wide, device=states.device)  # (D, N)
        total = states.new_zeros((), dtype=wide)
        factor = scale / max(len(states), 1)
        for begin in range(0, len(states), chunk):
            part = slice(begin, begin + chunk)
            target = targets[part, None]
            logits = torch.mm(low[part], vectors.t(), out=products[: len(target)]).to(wide)  # (c, N)
            if scale != 1.0:
                logits.mul_(scale)
            logits.sub_(logits.amax(dim=1, keepdim=True))
            chosen = logits.gather(1, target)
            sums = logits.exp_().sum(dim=1, keepdim=True)  # (c, 1)
            total += (sums.log() - chosen).sum()
            logits.scatter_add_(1, target, -sums)
            gradient = logits.to(kind)  # d loss / d logits, up to `factor` and a row's sum
            grad_states[part] = torch.mm(gradient, vectors) / sums
            shares = (states[part] / sums).to(kind).t()  # (D, c)
            if kind == wide:
                grad_table.addmm_(shares, gradient)
            else:
                grad_table += torch.mm(shares, gradient)
        ctx.save_for_backward(grad_states.mul_(factor), grad_table.mul_(factor).t().to(table.dtype))
        return total / max(len(states), 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_states, grad_table = ctx.saved_tensors
        upstream = grad_outputs[0]
        return grad_states * upstream, grad_table * upstream, None, None, None


def _product_dtype(states: Tensor) -> torch.dtype:
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def _chunk(table: Tensor) -> int:
    """States per chunk."""
    return max(64, CHUNK_ELEMENTS.get(table.device.type, CHUNK_ELEMENTS["cuda"]) // len(table))


def chunked_cross_entropy(
    states: Tensor, table: Tensor, targets: Tensor, *, scale: float = 1.0, chunk_rows: int | None = None
) -> Tensor:
    """Mean softmax cross-entropy over all rows of `table`, without holding P x N logits.

    ``loss = -1/P * sum_i log softmax_j(scale * <states_i, table_j>)[targets_i]`` (PRM-KD, Eq. 4).

    Args:
        states: (P, D).
        table: (N, D) vectors of all items that compete.
        targets: (P,) rows of `table`.
        scale: factor on the logits, 1 / temperature.
        chunk_rows: states per chunk; chosen from N when None.

    Returns:
        A scalar, in nats; 0 when P = 0.

    >>> states, table = torch.zeros(2, 3), torch.zeros(4, 3)
    >>> round(chunked_cross_entropy(states, table, torch.tensor([0, 3])).item(), 4)  # log 4
    1.3863
    """
    if len(states) == 0:
        return (states.sum() + table.sum()) * 0.0
    chunk = chunk_rows or _chunk(table)
    result: Tensor = _ChunkedCrossEntropy.apply(states, table, targets, scale, chunk)  # type: ignore[no-untyped-call]
    return result


class _ChunkedLogSumExp(torch.autograd.Function):
    """``sum_i weights_i log sum_j exp <states_i, table_j>``; made chunk by chunk, as `_ChunkedCrossEntropy`."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, weights: Tensor, chunk: int) -> Tensor:
        kind = _product_dtype(states)
        wide = torch.promote_types(kind, torch.float32)
        vectors, low, factors = table.to(kind), states.to(kind), weights.to(wide)[:, None]  # (P, 1)
        grad_states = torch.empty_like(states)
        grad_table = torch.zeros(states.shape[1], len(table), dtype=wide, device=states.device)  # (D, N)
        total = states.new_zeros((), dtype=wide)
        for begin in range(0, len(states), chunk):
            part = slice(begin, begin + chunk)
            logits = torch.mm(low[part], vectors.t()).to(wide)  # (c, N)
            sums = logits.logsumexp(dim=1, keepdim=True)
            total += (sums * factors[part]).sum()
            gradient = logits.sub_(sums).exp_().mul_(factors[part]).to(kind)
            grad_states[part] = torch.mm(gradient, vectors)
            grad_table += torch.mm(low[part].t(), gradient)
        ctx.save_for_backward(grad_states, grad_table.t().to(table.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_states, grad_table = ctx.saved_tensors
        return grad_states * grad_outputs[0], grad_table * grad_outputs[0], None, None


def repeated_cross_entropy(
    states: Tensor, table: Tensor, targets: Tensor, *, repeats: Tensor, chunk_rows: int | None = None
) -> Tensor:
    """`chunked_cross_entropy` where a state has several targets: the sum over all items is made once for each state.

    ``loss = 1/P * (sum_r n_r log sum_j exp <states_r, table_j> - sum_i <states_r(i), table_targets_i>)``.

    Args:
        states: (R, D).
        table: (N, D) vectors of all items that compete.
        targets: (P,) rows of `table`, those of the first state first.
        repeats: (R,) targets of each state, n_r; they add up to P.
        chunk_rows: states per chunk; chosen from N when None.

    Returns:
        A scalar, in nats; 0 when P = 0.

    >>> states, table = torch.zeros(2, 3), torch.zeros(4, 3)
    >>> targets, repeats = torch.tensor([0, 3, 1]), torch.tensor([2, 1])
    >>> round(repeated_cross_entropy(states, table, targets, repeats=repeats).item(), 4)  # log 4
    1.3863
    """
    if len(targets) == 0:
        return (states.sum() + table.sum()) * 0.0
    own = torch.repeat_interleave(states, repeats, dim=0)  # (P, D)
    positive = torch.linalg.vecdot(own, table[targets]).sum()
    sums: Tensor = _ChunkedLogSumExp.apply(states, table, repeats, chunk_rows or _chunk(table))  # type: ignore[no-untyped-call]
    loss: Tensor = (sums - positive) / len(targets)
    return loss


def bce_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of one target against m negatives, mean over the 1 + m (SASRec, Kang & McAuley 2018).

    Args:
        positive: (P,) scores of the targets.
        negative: (P, m) scores of the negatives; -inf takes one out of the loss.

    Returns:
        A scalar, in nats.

    >>> round(bce_loss(torch.tensor([0.0]), torch.tensor([[0.0]])).item(), 4)  # log 2
    0.6931
    """
    return gbce_loss(positive, negative, beta=1.0)


def gbce_loss(positive: Tensor, negative: Tensor, beta: float) -> Tensor:
    """Generalized binary cross-entropy (gSASRec, Petrov & Macdonald 2023, Eq. 9): ``sigmoid(s+)`` to the power `beta`.

    Sampled negatives make a model overconfident; a `beta` below 1 undoes it, see `gbce_beta`.

    Args:
        positive: (P,).
        negative: (P, m); -inf takes one out of the loss.
        beta: 1 gives plain binary cross-entropy.
    """
    return (beta * F.softplus(-positive) + F.softplus(negative).sum(dim=1)).mean() / (1 + negative.shape[1])


def gbce_beta(num_items: int, num_negatives: int, calibration: float) -> float:
    """``beta = a (t (1 - 1/a) + 1/a)`` with the sampling rate ``a = m / (N - 1)`` (gSASRec, Eq. 12).

    Args:
        num_items: N.
        num_negatives: m.
        calibration: t; 0 is plain binary cross-entropy, 1 calibrates the probabilities fully.

    >>> gbce_beta(1001, 100, 0.0), round(gbce_beta(1001, 100, 1.0), 6)
    (1.0, 0.1)
    """
    rate = min(1.0, num_negatives / max(num_items - 1, 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalized ranking, ``-log sigmoid(s+ - s-)``, mean over all pairs (Rendle et al. 2009).

    Args:
        positive: (P,).
        negative: (P, m); -inf takes one out of the loss.

    >>> round(bpr_loss(torch.tensor([1.0]), torch.tensor([[1.0, 1.0]])).item(), 4)  # log 2
    0.6931
    """
    return F.softplus(negative - positive[:, None]).mean()


def mean_bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """BPR against the mean score of the negatives, ``-log sigmoid(s+ - mean_k s_k)`` (RecGURU, Li et al. 2022).

    Args:
        positive: (P,).
        negative: (P, m); -inf takes one out of the mean, and a target without negatives adds 0.

    >>> round(mean_bpr_loss(torch.tensor([1.0]), torch.tensor([[0.0, 2.0]])).item(), 4)  # log 2
    0.6931
    """
    counts = negative != -torch.inf
    number = counts.sum(dim=1)
    mean = negative.masked_fill(~counts, 0.0).sum(dim=1) / number.clamp_min(1)
    return (F.softplus(mean - positive) * (number > 0)).mean()


def sampled_softmax_loss(positive: Tensor, negative: Tensor, log_q_positive: Tensor, log_q_negative: Tensor) -> Tensor:
    """Softmax cross-entropy over the target and m samples, corrected for how likely each was drawn (logQ).

    ``-log(e^(s+ - log q+) / (e^(s+ - log q+) + sum_j e^(s_j - log q_j)))`` (Bengio & Senecal 2008; Yi et al. 2019): the
    popular, drawn often, are not punished for it.

    Args:
        positive: (P,).
        negative: (P, m); -inf takes one out of the loss.
        log_q_positive: (P,) log probability that one draw gives the target.
        log_q_negative: (m,) or (P, m) the same of the negatives.

    >>> zero = torch.zeros(1)
    >>> round(sampled_softmax_loss(zero, torch.zeros(1, 3), zero, torch.zeros(3)).item(), 4)  # log 4
    1.3863
    """
    own = (positive - log_q_positive)[:, None]
    others = negative - log_q_negative
    return (torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]).mean()
