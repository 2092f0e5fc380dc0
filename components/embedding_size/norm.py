"""Batch normalization for streams: statistics of the batch while there are rows enough, running ones otherwise."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_ROWS: Final = 8  # rows that statistics are taken of; of fewer, running ones are better
MOMENTUM: Final = 0.1
EPSILON: Final = 1e-5


class StreamNorm(nn.Module):
    """Batch normalization with one scale and shift, and running statistics per group of rows.

    A streaming model predicts before it learns, always with the statistics of the batch, so there is no mode of
    evaluation; what serves one request at a time uses the running statistics (`running`).

    Args:
        width: F.
        groups: G, such as one per embedding size.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(groups, width))
        self.register_buffer("running_var", torch.ones(groups, width))

    def forward(self, rows: Tensor, *, track: bool, group: int = 0) -> Tensor:
        """(B, F) -> (B, F); `track` also moves the running statistics of `group`."""
        return self._normalized(rows, self.running_mean[group], self.running_var[group], track, 1)

    def branches(self, branches: Tensor, *, track: bool) -> Tensor:
        """(B, G, F) -> (B, G, F), every group over all B rows."""
        flat = branches.flatten(1)
        groups = len(self.running_mean)
        mean, var = self.running_mean.view(-1), self.running_var.view(-1)
        return self._normalized(flat, mean, var, track, groups).view_as(branches)

    def running(self, rows: Tensor, groups: Tensor) -> Tensor:
        """(B, F) rows of (B,) groups by running statistics alone: what one row gives, any batch gives."""
        scale = (self.running_var + EPSILON).rsqrt() * self.weight  # (G, F)
        return (rows - self.running_mean[groups]) * scale[groups] + self.bias

    def _normalized(self, rows: Tensor, mean: Tensor, var: Tensor, track: bool, repeat: int) -> Tensor:
        weight = self.weight if repeat == 1 else self.weight.repeat(repeat)
        bias = self.bias if repeat == 1 else self.bias.repeat(repeat)
        enough = len(rows) >= MIN_ROWS
        if enough and not track:
            return functional.batch_norm(rows, None, None, weight, bias, True, MOMENTUM, EPSILON)
        return functional.batch_norm(rows, mean, var, weight, bias, enough, MOMENTUM, EPSILON)
