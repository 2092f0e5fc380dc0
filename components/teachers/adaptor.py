"""Text vectors -> item vectors: parametric whitening, its mixture of experts, and whitening without parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.layers.dropout import Dropout
from components.layers.recompute import recomputed

CHUNK_ROWS = 1 << 16  # rows adapted at once; more are recomputed in the backward pass, so that memory stays bounded
NOISE_FLOOR = 0.01
EIGENVALUE_FLOOR = 1e-3  # of the mean eigenvalue: directions without variance are not blown up to noise


class PWLayer(nn.Module):
    """Parametric whitening, ``(dropout(x) - bias) W`` (UniSRec, Eq. 1).

    Args:
        in_dim: width of the input.
        out_dim: width of the output.
        dropout: rate on the input.
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float = 0.2, init_std: float = 0.02) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(in_dim))
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.weight, std=init_std)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim)."""
        shifted: Tensor = self.dropout(x) - self.bias
        return shifted @ self.weight


class MoEAdaptor(nn.Module):
    """A noisily gated sum of parametric whitenings (UniSRec, Eq. 2-4).

    ``out = sum_g gate_g(x) (dropout(x) - bias_g) W_g`` over all G experts; no top-k. Both gate matrices start at 0, so
    every gate starts at 1 / G in evaluation.

    All experts share one draw of the input dropout (the original draws once per expert). So the layer is one product
    ``x [W_1 .. W_G]`` and a weighting, and the biases, which do not depend on the item, cost nothing.

    Args:
        in_dim: width of the text vectors.
        out_dim: D.
        num_experts: G.
        dropout: rate on the input.
    """

    def __init__(
        self, in_dim: int, out_dim: int, num_experts: int = 8, dropout: float = 0.2, init_std: float = 0.02
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.num_experts = in_dim, out_dim, num_experts
        self.weight = nn.Parameter(torch.empty(num_experts, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(num_experts, in_dim))
        self.gate = nn.Parameter(torch.zeros(in_dim, num_experts))
        self.noise = nn.Parameter(torch.zeros(in_dim, num_experts))
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.weight, std=init_std)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) -> (N, out_dim)."""
        joined = self.weight.transpose(0, 1).flatten(1)  # (in_dim, G * D)
        shift = torch.bmm(self.bias[:, None], self.weight)[:, 0]  # (G, D), the biases after their expert
        if len(x) <= CHUNK_ROWS:
            return self._mix(x, joined, shift)
        rows = torch.split(x, CHUNK_ROWS)
        return torch.cat([recomputed(self._mix, (self.gate, self.noise), part, joined, shift) for part in rows])

    def gates(self, x: Tensor) -> Tensor:
        """(N, in_dim) -> (N, G) weights of the experts; they sum to 1, and are noisy in training only."""
        logits = x @ self.gate
        if self.training:
            spread = F.softplus(x @ self.noise) + NOISE_FLOOR
            logits = logits + torch.randn_like(spread) * spread
        return logits.softmax(dim=-1)

    def _mix(self, x: Tensor, joined: Tensor, shift: Tensor) -> Tensor:
        gates = self.gates(x)
        experts = (self.dropout(x) @ joined).unflatten(-1, (self.num_experts, self.out_dim))  # (N, G, D)
        mixed = torch.bmm(gates[:, None].to(experts.dtype), experts)[:, 0]  # (N, D)
        return mixed.to(x.dtype) - gates.to(x.dtype) @ shift.to(x.dtype)


class Whitening(nn.Module):
    """Whitening without trained parameters: mean 0 and covariance I over the catalog it was fitted on (ZCA).

    It stands in front of the adaptor. The transform is saved with the model: a new catalog meets the one of training.

    Args:
        in_dim: width of the vectors.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_dim))
        self.register_buffer("matrix", torch.eye(in_dim))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take mean and covariance from the rows of `x` (N, in_dim)."""
        if len(x) == 0:
            return
        rows = x.double()
        centered = rows - rows.mean(dim=0)
        values, vectors = torch.linalg.eigh(centered.t() @ centered / len(rows))
        floor = EIGENVALUE_FLOOR * values.mean().clamp_min(torch.finfo(torch.float32).tiny)
        scale = values.clamp_min(floor).rsqrt()
        self.mean.copy_(rows.mean(dim=0))
        self.matrix.copy_(vectors * scale @ vectors.t())

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) -> (N, in_dim)."""
        return (x - self.mean) @ self.matrix
