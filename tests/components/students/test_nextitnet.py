from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.batching import history_batch
from components.students.nextitnet import WIDE, CausalConvolution, NextItNet, ResidualBlock, spread
from tests.components.students.walks import every_position, make

SMALL = {"dim": 8, "max_length": 20}


def network(dilations: list[int], dim: int = 8, kernel_size: int = 3) -> NextItNet:
    """A network in double precision whose weights and norms are far from their start."""
    torch.manual_seed(0)
    blocks = [
        ResidualBlock(CausalConvolution(dim, kernel_size), CausalConvolution(dim, kernel_size), dim, dilation)
        for dilation in dilations
    ]
    result = NextItNet(blocks, nn.Linear(dim, dim), dropout=0.0).double().eval()
    for parameter in result.parameters():
        nn.init.normal_(parameter, std=0.5)
    return result


def plain(net: NextItNet, x: Tensor) -> Tensor:
    """(L, D) -> (L, D): the network item by item, tap by tap."""
    for block in net.blocks:
        inner = x
        for convolution, norm, dilation in (
            (block.first, block.first_norm, block.dilation),
            (block.second, block.second_norm, 2 * block.dilation),
        ):
            size = convolution.kernel_size
            taps = convolution.weight.chunk(size, dim=1)
            rows = []
            for now in range(len(inner)):
                total = convolution.bias
                for step in range(size):
                    place = now - (size - 1 - step) * dilation
                    total = total + (taps[step] @ inner[place] if place >= 0 else 0.0)
                rows.append(F.relu(norm(total)))
            inner = torch.stack(rows)
        x = x + inner
    return net.output(x)


def test_parameter_count_by_hand() -> None:
    """Per block two kernels 3 D^2 + D and two norms 2 D; then the output layer."""
    parts = make("nextitnet", 100, dim=64, dilations=[1, 4], num_repeats=2).parameter_parts()
    convolutions, norms = 8 * (3 * 64 * 64 + 64), 8 * 2 * 64
    network = convolutions + norms + 64 * 64 + 64
    assert parts == {"total": 101 * 64 + network, "embedding": 101 * 64, "network": network, "head": 0}


def test_a_kernel_of_the_paper_by_compression() -> None:
    """CpRec counts 786,944 parameters in a convolution of width 512, bias included."""
    assert sum(parameter.numel() for parameter in CausalConvolution(512).parameters()) == 786_944


@pytest.mark.parametrize(("dilation", "kernel_size"), [(1, 3), (4, 3), (3, 2), (30, 3)])
def test_the_product_over_taps_is_a_causal_convolution(dilation: int, kernel_size: int) -> None:
    torch.manual_seed(0)
    convolution, x = CausalConvolution(6, kernel_size), torch.randn(2, 11, 6)
    kernel = convolution.weight.view(6, kernel_size, 6).transpose(1, 2)  # (out, in, K)
    padded = F.pad(x.transpose(1, 2), ((kernel_size - 1) * dilation, 0))
    expected = F.conv1d(padded, kernel, convolution.bias, dilation=dilation).transpose(1, 2)
    torch.testing.assert_close(convolution(x, dilation), expected)


@pytest.mark.parametrize(("dilations", "kernel_size"), [([1, 4], 3), ([3], 3), ([2, 1], 2)])
def test_states_are_those_of_plain_loops(dilations: list[int], kernel_size: int) -> None:
    net = network(dilations, kernel_size=kernel_size)
    x = torch.randn(2, 14, 8, dtype=torch.float64)
    found = net(x, torch.arange(28)).view(2, 14, 8)
    torch.testing.assert_close(found, torch.stack([plain(net, row) for row in x]))
    some = torch.tensor([3, 9, 20])
    torch.testing.assert_close(net(x, some), found.view(28, 8)[some])


@pytest.mark.parametrize(
    ("dilations", "kernel_size", "size"),
    [([1], 3, 7), ([1, 4], 3, 31), ([1, 4, 1, 4], 3, 61), ([3], 3, 19), ([2], 2, 7)],
)
def test_a_state_depends_on_exactly_its_receptive_field(dilations: list[int], kernel_size: int, size: int) -> None:
    """1 + (K - 1) times the sum of all dilations; coarse dilations leave gaps."""
    net = network(dilations, kernel_size=kernel_size)
    x = torch.randn(1, 70, 8, dtype=torch.float64, requires_grad=True)
    net(x, torch.tensor([65])).square().sum().backward()
    assert x.grad is not None
    read = {65 - place for place in torch.nonzero(x.grad[0].abs().sum(1))[:, 0].tolist()}
    steps = [range(0, dilation * kernel_size, dilation) for block in dilations for dilation in (block, 2 * block)]
    assert read == {sum(path) for path in product(*steps)}
    assert max(read) + 1 == size


def test_the_future_does_not_change_a_state() -> None:
    """S6, causality."""
    model = make("nextitnet", **SMALL)
    states = [model.states(every_position([1, 2, 3, *tail], 20)) for tail in ([4, 5], [9, 9])]
    torch.testing.assert_close(states[0][:3], states[1][:3])
    assert not torch.allclose(states[0][3:], states[1][3:])


@pytest.mark.parametrize("dilations", [[1], [1, 4], [5, 2], [30], [1, 4, 1, 4]])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_the_last_states_alone_are_those_of_the_full_pass(dilations: list[int], kernel_size: int) -> None:
    """Rows end at different columns; some begin inside the receptive field, one is a single item."""
    net = network(dilations, kernel_size=kernel_size)
    lengths = torch.tensor([1, 3, 12, 25, 24])
    x = torch.randn(5, 25, 8, dtype=torch.float64) * (torch.arange(25) < lengths[:, None])[..., None]
    positions = torch.arange(5) * 25 + lengths - 1
    torch.testing.assert_close(net(x, positions, last_only=True), net(x, positions))


@pytest.mark.parametrize(
    ("dilations", "expected"), [([1, 4], [15, 7, 3, 1]), ([1, 4, 1, 4], [50, 50, 50, 50, 15, 7, 3, 1])]
)
def test_the_last_states_alone_cost_fewer_positions(dilations: list[int], expected: list[int]) -> None:
    """The cone of [1, 4]: of 50 items the four convolutions write 15, 7, 3 and 1 positions.

    Of [1, 4, 1, 4] the second block would have to write 31, more than half: it and the first one write all.
    """
    net, written = network(dilations), []
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, arguments, out: written.append(out.shape[1]))
    net(torch.randn(2, 50, 8, dtype=torch.float64), torch.tensor([49, 70]), last_only=True)
    assert written == expected


@pytest.mark.parametrize(("dim", "expected"), [(8, [50, 50, 50, 50]), (WIDE, [15, 7, 3, 1])])
def test_one_row_alone_is_cut_to_its_cone_where_it_is_wide(dim: int, expected: list[int]) -> None:
    model, written = make("nextitnet", dim=dim, dilations=[1, 4], num_repeats=1, max_length=50).eval(), []
    for module in model.network.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, arguments, out: written.append(out.shape[1]))
    x, last = torch.randn(1, 50, dim), torch.tensor([49])
    with torch.no_grad():
        torch.testing.assert_close(model.network(x, last, last_only=True), model.network(x, last), atol=1e-4, rtol=1e-4)
    assert written[:4] == expected


def test_in_training_mode_the_last_states_come_from_the_full_pass() -> None:
    model = make("nextitnet", **SMALL, dropout=0.0)
    batch = history_batch([[4, 8, 15], [16]], 20)
    torch.testing.assert_close(model.train().states(batch), model.eval().states(batch))


def test_blocks_may_share_their_convolutions() -> None:
    """The dilation belongs to the place in the network; norms are never shared."""
    first, second = CausalConvolution(8), CausalConvolution(8)
    net = NextItNet([ResidualBlock(first, second, 8, dilation) for dilation in (1, 4)], nn.Identity(), 0.0)
    assert sum(parameter.numel() for parameter in net.parameters()) == 2 * (3 * 64 + 8) + 4 * 16
    x = torch.randn(1, 12, 8)
    expected = net.blocks[1](net.blocks[0](x))[0]
    torch.testing.assert_close(net(x, torch.arange(12)), expected)
    assert not torch.allclose(first(x, 1), first(x, 4))


def test_padding_changes_nothing() -> None:
    """S6, padding, where every position is computed."""
    model = make("nextitnet", **SMALL)
    row = every_position([3, 1, 7], 20)
    wider = replace(row, items=F.pad(row.items, (0, 4)))
    torch.testing.assert_close(model.states(wider), model.states(row))


def test_offsets_of_what_a_convolution_reads() -> None:
    assert spread((0,), 8, 3, 50) == (0, 8, 16)
    assert spread((0, 8, 16), 4, 3, 50) == (0, 4, 8, 12, 16, 20, 24)
    assert spread((0, 8, 16), 4, 3, 10) == (0, 4, 8)


def test_convolutions_start_small_and_truncated() -> None:
    weight = CausalConvolution(64).weight
    assert weight.abs().max().item() <= 0.04
    assert weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)  # of a normal cut at two deviations


@pytest.mark.parametrize("dilation", [0, -1])
def test_a_dilation_must_be_positive(dilation: int) -> None:
    with pytest.raises(ValueError, match=f"dilation must be at least 1, got {dilation}"):
        ResidualBlock(CausalConvolution(4), CausalConvolution(4), 4, dilation)
    with pytest.raises(ValidationError, match="dilations"):
        make("nextitnet", dilations=[1, dilation])
    with pytest.raises(ValidationError, match="dilations"):
        make("nextitnet", dilations=[])
