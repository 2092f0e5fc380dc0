from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from components.layers.dropout import Dropout
from components.layers.recompute import recomputed


class Network(nn.Module):
    """Two inputs, a parameter that does not learn, dropout, and a count of its passes."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first, self.second, self.dropout = nn.Linear(4, 6), nn.Linear(6, 1), Dropout(dropout)
        self.second.bias.requires_grad_(False)
        self.passes = 0

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        self.passes += 1
        scores: Tensor = self.second(self.dropout(self.first(left * right).relu()))[:, 0]
        return scores


def gradients(network: Network, *, again: bool) -> list[Tensor]:
    torch.manual_seed(1)
    left, right = torch.randn(50, 4, requires_grad=True), torch.randn(50, 4, requires_grad=True)
    output = recomputed(network, left, right) if again else network(left, right)
    torch.rand(7)  # other draws between the passes
    wanted = [left, right, *(p for p in network.parameters() if p.requires_grad)]
    return [output.detach(), *torch.autograd.grad(output.square().sum(), wanted)]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_second_pass_repeats_the_first(dropout: float) -> None:
    network = Network(dropout)
    expected = gradients(network, again=False)
    assert network.passes == 1
    found = gradients(network, again=True)
    assert network.passes == 3
    torch.testing.assert_close(found, expected)


def test_the_generator_goes_on_as_if_nothing_had_been_repeated() -> None:
    network = Network(0.5)
    draws = []
    for again in (False, True):
        gradients(network, again=again)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_autocast_is_that_of_the_first_pass() -> None:
    network = Network(0.0)
    inputs = torch.randn(50, 4), torch.randn(50, 4)
    found = []
    for again in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = recomputed(network, *inputs) if again else network(*inputs)
        assert output.dtype == torch.bfloat16
        output.float().sum().backward()
        found.append(network.first.weight.grad.clone())
    assert torch.equal(*found)


def test_inputs_without_gradient_get_none() -> None:
    left, right = torch.randn(5, 4), torch.randn(5, 4, requires_grad=True)
    recomputed(Network(0.0), left, right).sum().backward()
    assert left.grad is None
    assert right.grad is not None


def test_the_compiler_stays_out() -> None:
    code = (
        "import sys, torch; from torch import nn; from components.layers.recompute import recomputed\n"
        "recomputed(nn.Linear(2, 1), torch.ones(3, 2)).sum().backward()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
