"""Less memory for gradients: what a pass computed is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[..., Tensor]


def recomputed(run: Run, parameters: Iterable[nn.Parameter], *inputs: Tensor) -> Tensor:
    """``run(*inputs)``, of which only the result is kept; the backward pass runs it again, with the same dropout.

    `torch.utils.checkpoint` does that too, but imports torch's compiler: seconds, and memory in every worker.

    Args:
        run: a function of `inputs` and `parameters`; random numbers come from the global generators.
        parameters: what receives gradients; frozen ones are left alone.
        inputs: tensors without gradients, all on one device.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not torch.is_grad_enabled() or not trained:
        return run(*inputs)
    result: Tensor = _Recomputed.apply(run, inputs, *trained)  # type: ignore[no-untyped-call]
    return result


class _Recomputed(torch.autograd.Function):
    """Parameters are inputs, so that autograd adds their gradients up; they are leaves and cost nothing to hold."""

    @staticmethod
    def forward(ctx: Any, run: Run, inputs: tuple[Tensor, ...], *parameters: nn.Parameter) -> Tensor:
        ctx.run, ctx.inputs, ctx.parameters = run, inputs, parameters
        kind = ctx.kind = inputs[0].device.type
        ctx.autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        ctx.random = torch.get_rng_state(), torch.cuda.get_rng_state(inputs[0].device) if kind == "cuda" else None
        return run(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        device = ctx.inputs[0].device
        (enabled, dtype), (random, random_there) = ctx.autocast, ctx.random
        with torch.random.fork_rng([device] if random_there is not None else []), torch.enable_grad():
            torch.set_rng_state(random)
            if random_there is not None:
                torch.cuda.set_rng_state(random_there, device)
            with torch.autocast(ctx.kind, dtype=dtype, enabled=enabled):
                result = ctx.run(*ctx.inputs)
            # A scalar, since handing `grad` the upstream gradient makes it import a computer algebra system.
            scalar = (result * grad_outputs[0]).sum()
        gradients = torch.autograd.grad(scalar, ctx.parameters, allow_unused=True)
        return (None, None, *gradients)
