"""Linear layers by oneDNN instead of MKL, which torch calls for 32-bit numbers on a CPU.

MKL leaves half of the vector width of AMD processors unused: there oneDNN takes half the time, to the same precision.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_ROWS: Final = 64  # fewer are not worth its preparation of a call, some 10 µs


def use_onednn(model: nn.Module) -> None:
    """Let the linear layers of a model that only infers take oneDNN for many rows, where torch has it.

    Results may differ in their last bits.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (available and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.forward = partial(_linear, layer)  # type: ignore[method-assign]


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    """(..., in) -> (..., out)."""
    few = rows.numel() < MIN_ROWS * layer.in_features
    if few or rows.dtype != torch.float32 or rows.device.type != "cpu" or torch.is_grad_enabled():
        return F.linear(rows, layer.weight, layer.bias)
    flat = rows.reshape(-1, layer.in_features)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(flat, layer.weight, layer.bias, "none", [], "")
    return found.view(*rows.shape[:-1], layer.out_features)
