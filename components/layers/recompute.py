"""Activations that are computed again in the backward pass instead of being held.

`torch.utils.checkpoint` does the same, but its first call imports torch's compiler: 20 seconds on a busy machine, and
memory in every worker.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def recomputed(module: nn.Module, *inputs: Tensor) -> Tensor:
    """``module(*inputs)``, one tensor; between the passes only `inputs` are held.

    Random draws of the second pass are those of the first, and so is autocast.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    result: Tensor = _Recomputed.apply(module, len(inputs), *inputs, *parameters)  # type: ignore[no-untyped-call]
    return result


class _Recomputed(torch.autograd.Function):
    """Parameters are inputs, so that autograd asks for their gradients."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, count: int, *tensors: Tensor) -> Tensor:
        device = tensors[0].device
        ctx.module, ctx.count, ctx.device = module, count, device
        ctx.states = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        ctx.autocast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
        ctx.save_for_backward(*tensors)
        result: Tensor = module(*tensors[:count])
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors[: ctx.count], ctx.needs_input_grad[2:], strict=False)
        ]
        parameters = ctx.saved_tensors[ctx.count :]
        enabled, dtype = ctx.autocast
        cuda = [] if ctx.states[1] is None else [ctx.device]
        with torch.random.fork_rng(cuda), torch.enable_grad(), torch.autocast(ctx.device.type, dtype, enabled):
            torch.set_rng_state(ctx.states[0])
            if cuda:
                torch.cuda.set_rng_state(ctx.states[1], ctx.device)
            output = ctx.module(*inputs)
        wanted = [tensor for tensor in (*inputs, *parameters) if tensor.requires_grad]
        found = iter(torch.autograd.grad(output, wanted, grad_outputs[0]))
        gradients = (next(found) if tensor.requires_grad else None for tensor in (*inputs, *parameters))
        return (None, None, *gradients)
