from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from components.layers.transformer import SelfAttention, TransformerEncoder

LENGTHS = torch.tensor([5, 2, 1])


def plain_attention(module: SelfAttention, x: Tensor, seen: Tensor) -> Tensor:
    """(L, D) one row -> (L, D), head by head; `seen` (L, L) says which key a query sees."""
    query, key, value = module.project_in(x).chunk(3, dim=-1)
    width = x.shape[1] // module.num_heads
    mixed = []
    for head in range(module.num_heads):
        part = slice(head * width, (head + 1) * width)
        logits = (query[:, part] @ key[:, part].t() / math.sqrt(width)).masked_fill(~seen, -torch.inf)
        mixed.append(logits.softmax(1) @ value[:, part])
    result: Tensor = module.project_out(torch.cat(mixed, dim=1))
    return result


def test_attention_is_causal_or_sees_what_it_is_told_to() -> None:
    torch.manual_seed(0)
    module, x = SelfAttention(6, 2, 0.0), torch.randn(3, 5, 6)
    visible = torch.arange(5) < LENGTHS[:, None]
    both, causal = module(x, visible[:, None, None, :]), module(x)
    for row in range(3):
        torch.testing.assert_close(causal[row], plain_attention(module, x[row], torch.ones(5, 5).tril().bool()))
        torch.testing.assert_close(both[row], plain_attention(module, x[row], visible[row].expand(5, 5)))


def test_attention_both_ways_drops_weights_in_training_alone() -> None:
    torch.manual_seed(0)
    module, x = SelfAttention(6, 2, 0.4), torch.randn(3, 5, 6)
    visible = (torch.arange(5) < LENGTHS[:, None])[:, None, None, :]
    expected = module.eval()(x, visible)
    torch.testing.assert_close(module(x, visible), expected, rtol=0, atol=0)
    drawn = torch.stack([module.train()(x, visible) for _ in range(4000)])
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("training", [True, False])
def test_the_last_position_alone_is_that_of_the_full_pass_both_ways(norm: str, training: bool) -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(8, 2, 2, 16, 5, dropout=0.0, norm=norm).train(training)  # type: ignore[arg-type]
    x, positions = torch.randn(3, 5, 8), torch.arange(3) * 5 + LENGTHS - 1
    full = encoder(x, torch.arange(15), False, LENGTHS)
    torch.testing.assert_close(encoder(x, positions, True, LENGTHS), full[positions])


def test_reading_both_ways_sees_all_of_a_row_and_no_padding() -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(8, 2, 2, 16, 5).eval()
    x, every = torch.randn(1, 5, 8), torch.arange(5)
    states = encoder(x, every, False, torch.tensor([3]))
    padded, inside = x.clone(), x.clone()
    padded[:, 3:] += 1.0
    inside[:, 2] = -inside[:, 2]
    torch.testing.assert_close(encoder(padded, every, False, torch.tensor([3]))[:3], states[:3], rtol=0, atol=0)
    assert not torch.allclose(encoder(inside, every, False, torch.tensor([3]))[0], states[0])
    assert torch.equal(encoder(inside, every)[0], encoder(x, every)[0]), "causal where no lengths are given"
