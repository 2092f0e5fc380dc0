"""Tensors of a trained student in fewer bytes: int8 rows with a scale each, or bf16; they compute in fp32 again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "bf16", "int8"]
LEVELS: Final = 127  # int8 is used symmetrically, so that 0 stays 0
CUT: Final = 0xFF  # bits of a scale that are rounded away
SCALE: Final = ".scale"  # behind the name of a tensor in int8: the name of its scales
WIDTH: Final[Mapping[Precision, int]] = {"fp32": 4, "bf16": 2, "int8": 1}  # bytes of a number


def quantized(tensors: Mapping[str, Tensor], precision_of: Callable[[str], Precision]) -> dict[str, Tensor]:
    """What is stored in place of `tensors`.

    Only floating tensors change. In int8 a matrix has a scale per row (the first dimension: an item, or an output of a
    layer), by which its largest number becomes 127; vectors, such as biases and norms, are too small to gain and stay
    in fp32.

    Args:
        tensors: by name, fp32.
        precision_of: what each name is stored in.
    """
    found = {}
    for name, tensor in tensors.items():
        precision = precision_of(name) if tensor.is_floating_point() else "fp32"
        if precision == "int8" and tensor.dim() > 1:
            scales = row_scales(tensor)
            found[name] = (tensor / _by_row(scales, tensor)).round().to(torch.int8)
            found[name + SCALE] = scales
        else:
            found[name] = tensor.bfloat16() if precision == "bf16" else tensor
    return found


def dequantized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `quantized` stored, as fp32; other tensors come back as they are."""
    scales = {name + SCALE for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    return {
        name: _restored(tensor, tensors.get(name + SCALE)) for name, tensor in tensors.items() if name not in scales
    }


def appended(tensors: Mapping[str, Tensor], name: str, rows: Tensor) -> dict[str, Tensor]:
    """The tensor `name` of `quantized` tensors with more rows behind its own, which stay to the bit; and its scales.

    Args:
        tensors: by name, as stored.
        name: of the tensor that grows.
        rows: (M, ...) in fp32.
    """
    old = tensors[name]
    if old.dtype != torch.int8:
        return {name: torch.cat([old, rows.to(old.dtype)])}
    new = quantized({name: rows}, lambda _: "int8")
    return {key: torch.cat([tensors[key], new[key]]) for key in (name, name + SCALE)}


def row_scales(matrix: Tensor) -> Tensor:
    """(R,) largest number of each row, by 127; 1 for rows of zeros.

    Scales have 16 significant bits, rounded up: 127 of them are exact in fp32, so that what was rounded once and is
    rounded again stays to the bit.
    """
    largest = matrix.flatten(1).abs().amax(1).clamp(min=torch.finfo(matrix.dtype).tiny * LEVELS)
    scales = ((largest / LEVELS).view(torch.int32) + CUT & ~CUT).view(torch.float32)
    return torch.where(matrix.flatten(1).any(1), scales, 1.0)


def stored_bytes(tensors: Mapping[str, Tensor], precision_of: Callable[[str], Precision]) -> int:
    """Bytes of what `quantized` would return, from shapes alone: the tensors may be without memory."""
    total = 0
    for name, tensor in tensors.items():
        precision = precision_of(name) if tensor.is_floating_point() else "fp32"
        if not tensor.is_floating_point():
            total += tensor.numel() * tensor.element_size()
        elif precision == "int8" and tensor.dim() > 1:
            total += tensor.numel() + WIDTH["fp32"] * len(tensor)
        else:
            total += tensor.numel() * WIDTH["fp32" if precision == "int8" else precision]
    return total


def _restored(tensor: Tensor, scales: Tensor | None) -> Tensor:
    if tensor.dtype == torch.bfloat16:
        return tensor.float()
    if tensor.dtype == torch.int8 and scales is not None:
        return tensor.float() * _by_row(scales, tensor)
    return tensor


def _by_row(scales: Tensor, tensor: Tensor) -> Tensor:
    return scales.view(-1, *[1] * (tensor.dim() - 1))
