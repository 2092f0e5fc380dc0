"""Matrix products of many rows by oneDNN instead of MKL, which torch calls for 32-bit numbers on a CPU.

MKL leaves half of the vector width of AMD processors unused: there oneDNN takes half the time, to the same precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MIN_ROWS: Final = 64  # fewer are not worth its preparation of a call, some 10 µs


class _Products(TorchFunctionMode):
    """Redirects `F.linear`, and `torch.mm` by a transposed matrix, where oneDNN can and should take them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not kwargs and func is F.linear and _suits(*args):
            return _product(*args)
        if not kwargs and func is torch.mm and _suits(args[0], args[1].t()):
            return _product(args[0], args[1].t())
        return func(*args, **(kwargs or {}))


def _suits(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    tensors = (rows, weight) if bias is None else (rows, weight, bias)
    plain = all(one.device.type == "cpu" and one.dtype == torch.float32 and one.is_contiguous() for one in tensors)
    return plain and rows.numel() >= MIN_ROWS * rows.shape[-1] > 0 and not torch.is_grad_enabled()


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    flat = rows.reshape(-1, rows.shape[-1])
    found: Tensor = torch.ops.mkldnn._linear_pointwise(flat, weight, bias, "none", [], "")
    return found.view(*rows.shape[:-1], weight.shape[0])


@contextmanager
def fast_products() -> Iterator[None]:
    """Within the block, products of many rows take oneDNN where torch has it; results may differ in their last bits."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (available and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        yield
        return
    with _Products():
        yield
