"""The networks of a streaming model: transforms between sizes, the head, policies and controllers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from components.embedding_size.norm import StreamNorm
from components.embedding_size.sizes import NUM_SIZES, SIZES, WIDTH

HIDDEN: Final = 512  # of the head, of policies and of controllers (section 3.2)
FREQUENCY_WIDTH: Final = 32  # of a frequency's embedding in a policy; the paper does not say, its code does


class SizeChain(nn.Module):
    """The affine maps from each size to the next (Eq. 1), and the normalization behind the last."""

    def __init__(self) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(nn.Linear(small, large) for small, large in pairwise(SIZES))
        self.norm = StreamNorm(WIDTH, NUM_SIZES)

    def widen(self, parts: Sequence[Tensor]) -> Tensor:
        """(n_0 + … + n_5, 128): embeddings of every size, each through all maps from its own size on.

        Args:
            parts: (n_k, d_k) of every size, in their order.
        """
        rows = parts[0]
        for transform, part in zip(self.transforms, parts[1:], strict=True):
            rows = torch.cat([transform(rows), part])  # (n_0 + … + n_k, d_k)
        return rows


class SizeHeads(nn.Module):
    """DARTS and AutoEmb: a map of its own from each size to the width of the network, and one normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(size, WIDTH) for size in SIZES)
        self.norm = StreamNorm(WIDTH, NUM_SIZES)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """(U, 6, 128) from (U, d_k) of every size."""
        return torch.stack([widen(part) for widen, part in zip(self.maps, parts, strict=True)], 1)


class Head(nn.Module):
    """The inference layer: user and item vectors -> logits, with the two normalizations of the authors' code.

    Args:
        num_outputs: logits; 1 for the binary task.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.outer = StreamNorm(2 * WIDTH)
        self.hidden = nn.Linear(2 * WIDTH, HIDDEN)
        self.inner = StreamNorm(HIDDEN)
        self.output = nn.Linear(HIDDEN, num_outputs)

    def forward(self, users: Tensor, items: Tensor, *, track: bool) -> Tensor:
        """(B, out) logits of (B, 128) users and (B, 128) items."""
        rows = self.outer(torch.cat([users, items], 1), track=track)
        return self.output(torch.tanh(self.inner(self.hidden(rows), track=track)))  # type: ignore[no-any-return]


class StateNetwork(nn.Module):
    """A policy (two actions) or AutoEmb's controller (six sizes): frequency and six more numbers -> logits.

    Args:
        max_frequency: larger frequencies count as this one.
        num_outputs: logits.
    """

    def __init__(self, max_frequency: int, num_outputs: int) -> None:
        super().__init__()
        self.max_frequency = max_frequency
        self.frequencies = nn.Embedding(max_frequency + 1, FREQUENCY_WIDTH)
        self.outer = StreamNorm(FREQUENCY_WIDTH)
        self.hidden = nn.Linear(FREQUENCY_WIDTH + NUM_SIZES, HIDDEN)
        self.inner = StreamNorm(HIDDEN)
        self.output = nn.Linear(HIDDEN, num_outputs)

    def forward(self, frequency: Tensor, state: Tensor, *, track: bool) -> Tensor:
        """(B, out) logits.

        Args:
            frequency: (B,) occurrences so far.
            state: (B, 6): the current size as one-hot, or the last weights of the sizes.
            track: also move the running statistics.
        """
        seen = self.outer(self.frequencies(frequency.clamp(max=self.max_frequency)), track=track)
        hidden = self.inner(self.hidden(torch.cat([seen, state], 1)), track=track)
        return self.output(torch.tanh(hidden))  # type: ignore[no-any-return]


def num_parameters(module: nn.Module) -> int:
    """Numbers that `module` learns."""
    return sum(parameter.numel() for parameter in module.parameters())
