"""Less memory for gradients: what a pass computed is computed again in the backward pass.

`torch.utils.checkpoint` does the same, but its first call imports torch's compiler: seconds, and memory in every
worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[..., Tensor]


def recomputed(run: Run, parameters: Iterable[nn.Parameter], *inputs: Tensor) -> Tensor:
    """``run(*inputs)``, of which only inputs and result are held; the backward pass runs it again.

    Random draws of the second pass are those of the first, and so is autocast.

    Args:
        run: a function of `inputs` and `parameters`; random numbers come from the global generators.
        parameters: what receives gradients beside the inputs; frozen ones are left alone.
        inputs: tensors, all on one device.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not torch.is_grad_enabled():
        return run(*inputs)
    result: Tensor = _Recomputed.apply(run, len(inputs), *inputs, *trained)  # type: ignore[no-untyped-call]
    return result


class _Recomputed(torch.autograd.Function):
    """Parameters are inputs, so that autograd asks for their gradients."""

    @staticmethod
    def forward(ctx: Any, run: Run, count: int, *tensors: Tensor) -> Tensor:
        device = tensors[0].device
        ctx.run, ctx.device = run, device
        ctx.states = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        ctx.autocast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
        ctx.parameters = tensors[count:]  # leaves, held by their module anyway
        ctx.save_for_backward(*tensors[:count])
        return run(*tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[2:], strict=False)
        ]
        enabled, dtype = ctx.autocast
        cuda = [] if ctx.states[1] is None else [ctx.device]
        with torch.random.fork_rng(cuda), torch.enable_grad():
            torch.set_rng_state(ctx.states[0])
            if cuda:
                torch.cuda.set_rng_state(ctx.states[1], ctx.device)
            with torch.autocast(ctx.device.type, dtype, enabled):
                output = ctx.run(*inputs)
            # A scalar, since handing `grad` the upstream gradient makes it import a computer algebra system.
            scalar = (output * grad_outputs[0]).sum()
        every = [*inputs, *ctx.parameters]
        wanted = [tensor for tensor in every if tensor.requires_grad]
        found = iter(torch.autograd.grad(scalar, wanted, allow_unused=True))
        return (None, None, *(next(found) if tensor.requires_grad else None for tensor in every))
