from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from components.training.config import TrainingConfig
from components.training.optimizer import FusedAdam

CONFIGS = [
    TrainingConfig(optimizer="adam", learning_rate=0.05, weight_decay=0.1, betas=(0.8, 0.95)),
    TrainingConfig(optimizer="adamw", learning_rate=0.05, weight_decay=0.1),
]


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    return [nn.Parameter(torch.randn(3, 2, generator=generator)), frozen, nn.Parameter(torch.zeros(4))]


def gradients(step: int) -> list[Tensor | None]:
    """The last parameter has no gradient at first."""
    generator = torch.Generator().manual_seed(step)
    first, second = torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)
    return [first, None, second if step else None]


def give(chosen: list[nn.Parameter], step: int) -> None:
    for parameter, gradient in zip(chosen, gradients(step), strict=True):
        parameter.grad = gradient


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.optimizer)
def test_steps_are_those_of_the_torch_optimizer_bit_for_bit(config: TrainingConfig) -> None:
    ours, theirs = parameters(), parameters()
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    trained = [parameter for parameter in theirs if parameter.requires_grad]
    reference = kind(trained, lr=1.0, betas=config.betas, weight_decay=config.weight_decay, fused=True)
    optimizer = FusedAdam(ours, config)
    for step in range(5):
        optimizer.learning_rate = reference.param_groups[0]["lr"] = config.learning_rate / (step + 1)
        give(ours, step)
        give(theirs, step)
        optimizer.step()
        reference.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(parameter.grad is None for parameter in ours)


def test_a_loaded_state_goes_on_as_if_never_stopped() -> None:
    straight, stopped = parameters(), parameters()
    config = CONFIGS[0]
    first, second = FusedAdam(straight, config), FusedAdam(stopped, config)
    for step in range(6):
        if step == 3:
            saved = second.tensors()
            assert set(saved) == {f"{index}.{name}" for index in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")}
            second = FusedAdam(stopped, config)
            second.load(saved)
        for chosen, optimizer in ((straight, first), (stopped, second)):
            give(chosen, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, stopped, strict=True))


def test_the_compiler_is_not_imported() -> None:
    script = (
        "import sys, torch; from components.training.config import TrainingConfig; "
        "from components.training.optimizer import FusedAdam; p = torch.nn.Parameter(torch.ones(2)); "
        "p.grad = torch.ones(2); FusedAdam([p], TrainingConfig()).step(); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 0
