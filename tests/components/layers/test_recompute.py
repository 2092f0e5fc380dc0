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
    output = recomputed(network, network.parameters(), left, right) if again else network(left, right)
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
            output = recomputed(network, network.parameters(), *inputs) if again else network(*inputs)
        assert output.dtype == torch.bfloat16
        output.float().sum().backward()
        found.append(network.first.weight.grad.clone())
    assert torch.equal(*found)


def test_inputs_without_gradient_get_none() -> None:
    left, right = torch.randn(5, 4), torch.randn(5, 4, requires_grad=True)
    network = Network(0.0)
    recomputed(network, network.parameters(), left, right).sum().backward()
    assert left.grad is None
    assert right.grad is not None


def test_only_inputs_are_held() -> None:
    network, sizes = Network(0.5), set[int]()
    inputs = torch.randn(50, 4), torch.randn(50, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.add(t.numel()) or t, lambda t: t):
        recomputed(network, network.parameters(), *inputs)
    assert sizes == {200}


def test_frozen_parameters_get_none_and_without_gradients_it_runs_once() -> None:
    network = Network(0.0)
    inputs = torch.randn(5, 4), torch.randn(5, 4)
    recomputed(network, network.parameters(), *inputs).sum().backward()
    assert network.second.bias.grad is None
    assert network.first.weight.grad is not None
    assert network.passes == 2
    with torch.no_grad():
        assert not recomputed(network, network.parameters(), *inputs).requires_grad
    assert network.passes == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_drops_the_same_on_a_gpu() -> None:
    network = Network(0.5).to("cuda")
    found = []
    for again in (False, True):
        torch.manual_seed(1)
        inputs = torch.ones(50, 4, device="cuda"), torch.ones(50, 4, device="cuda")
        output = recomputed(network, network.parameters(), *inputs) if again else network(*inputs)
        found.append(torch.autograd.grad(output.sum(), network.first.weight)[0])
    torch.testing.assert_close(*found)


def test_neither_the_compiler_nor_algebra_is_imported() -> None:
    code = (
        "import sys, torch\n"
        "from components.layers.recompute import recomputed\n"
        "layer = torch.nn.Linear(2, 2)\n"
        "recomputed(layer, layer.parameters(), torch.ones(1, 2)).sum().backward()\n"
        "sys.exit(bool({'torch._dynamo', 'sympy'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
