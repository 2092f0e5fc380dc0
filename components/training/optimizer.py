"""Adam and AdamW by torch's fused step, without the object around it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from components.training.config import TrainingConfig

EPSILON = 1e-8
SLOTS = ("step", "exp_avg", "exp_avg_sq")


class FusedAdam:
    """Adam (Kingma & Ba 2015) or, with decoupled decay, AdamW (Loshchilov & Hutter 2019), of what is trainable.

    ``torch.optim.Adam`` imports torch's compiler when it is made: 80 MB in every worker. The functional step that it
    calls does not, and its result is the same bit for bit.

    Args:
        parameters: those with ``requires_grad`` are trained.
        config: learning rate, betas, decay and its kind.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: TrainingConfig) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.config = config
        self.learning_rate = config.learning_rate
        self._state: dict[int, dict[str, Tensor]] = {}

    def step(self) -> None:
        """Move every parameter that has a gradient, then forget the gradients."""
        moved = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
        parameters = [self.parameters[index] for index in moved]
        slots = [self._slots(index) for index in moved]
        steps, means, squares = ([slot[name] for slot in slots] for name in SLOTS)
        with torch.no_grad():
            adam(
                list[Tensor](parameters),
                [parameter.grad for parameter in parameters if parameter.grad is not None],
                means,
                squares,
                [],
                steps,
                fused=True,
                decoupled_weight_decay=self.config.optimizer == "adamw",
                amsgrad=False,
                beta1=self.config.betas[0],
                beta2=self.config.betas[1],
                lr=self.learning_rate,
                weight_decay=self.config.weight_decay,
                eps=EPSILON,
                maximize=False,
            )
        for parameter in parameters:
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors ``INDEX.SLOT``, on the CPU."""
        return {
            f"{index}.{name}": value.detach().cpu().clone()
            for index, slots in self._state.items()
            for name, value in slots.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put `tensors` back."""
        self._state = {}
        for index in {int(name.split(".")[0]) for name in tensors}:
            for name, value in self._slots(index).items():
                value.copy_(tensors[f"{index}.{name}"])

    def _slots(self, index: int) -> dict[str, Tensor]:
        """Step count and both moments of one parameter; zeros at its first gradient."""
        if index not in self._state:
            parameter = self.parameters[index]
            self._state[index] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self._state[index]
