from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from components.layers.dropout import Dropout
from components.layers.recompute import recomputed


class Network(nn.Module):
    """Looks items up, and drops some of what it finds."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.out, self.dropout = nn.Embedding(9, 6), nn.Linear(6, 4), Dropout(0.5)
        self.calls = 0

    def forward(self, items: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.out(self.dropout(self.items(items).tanh()))
        return result


def make(device: str = "cpu") -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    return Network().to(device), torch.tensor([[1, 2], [8, 1]], device=device)


def compare(device: str) -> None:
    """Results, gradients, and the random numbers drawn after the backward pass."""
    network, items = make(device)
    parameters = list(network.parameters())
    found = []
    for again in (True, False):
        torch.manual_seed(1)
        first = recomputed(network, parameters, items) if again else network(items)
        second = recomputed(network, parameters, items) if again else network(items)
        gradients = torch.autograd.grad((first * second).sum(), parameters)
        found.append([first, second, *gradients, torch.rand(3, device=device)])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_computes_the_same_with_the_same_drops_and_leaves_the_generator_alone() -> None:
    compare("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_computes_the_same_on_a_gpu() -> None:
    compare("cuda")


def test_under_autocast_the_second_pass_has_the_precision_of_the_first() -> None:
    network, items = make()
    kinds: list[torch.dtype] = []
    network.out.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = recomputed(network, network.parameters(), items)
    result.float().sum().backward()
    assert kinds == [torch.bfloat16, torch.bfloat16]


def test_only_the_result_is_kept() -> None:
    network, items = make()
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        recomputed(network, network.parameters(), items)
    assert sizes == []


def test_frozen_parameters_get_none_and_without_gradients_it_runs_once() -> None:
    network, items = make()
    network.items.weight.requires_grad_(False)
    recomputed(network, network.parameters(), items).sum().backward()
    assert network.items.weight.grad is None
    assert network.out.weight.grad is not None
    assert network.calls == 2
    with torch.no_grad():
        assert not recomputed(network, network.parameters(), items).requires_grad
    assert network.calls == 3


def test_neither_the_compiler_nor_algebra_is_imported() -> None:
    code = (
        "import sys, torch\n"
        "from components.layers.recompute import recomputed\n"
        "layer = torch.nn.Linear(2, 2)\n"
        "recomputed(layer, layer.parameters(), torch.ones(1, 2)).sum().backward()\n"
        "sys.exit(bool({'torch._dynamo', 'sympy'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
