"""Compressed students: what they share, and that they stay causal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.data.batching import history_batch
from components.model import Catalog
from components.students import STUDENTS
from components.training.seeds import seed_everything

CATALOG = Catalog(60, 4, np.arange(61)[::-1].copy())


def make(kind: str, sharing: str, **arguments: Any) -> torch.nn.Module:
    seed_everything(0)
    compression = {"sharing": sharing, "factor": 2}
    model = STUDENTS[kind].make(CATALOG, {"dim": 16, "max_length": 80, **arguments, "compression": compression})
    return model.eval()


@pytest.mark.parametrize(("sharing", "expected"), [("none", 8), ("cl", 1), ("cb", 2), ("al", 4), ("ab", 4)])
def test_convolutions_are_shared_and_layer_norms_are_not(sharing: str, expected: int) -> None:
    """Check K5, on the module."""
    model = make("nextitnet", sharing, dilations=[1, 2], num_repeats=2)
    convolutions = {
        id(p) for name, p in model.named_parameters() if ".first.weight" in name or ".second.weight" in name
    }
    norms = [name for name, _ in model.named_parameters() if "norm.weight" in name]
    assert len(convolutions) == expected
    assert len(norms) == 8


def test_blocks_of_a_transformer_share_all_but_their_norms() -> None:
    model = make("sasrec", "ab", num_layers=3)
    first, second, third = model.network.blocks  # type: ignore[union-attr,misc]
    assert first.attention is second.attention
    assert first.expand is second.expand
    assert first.contract is second.contract
    assert first.attention is not third.attention
    assert len({id(block.network_norm) for block in (first, second, third)}) == 3


@pytest.mark.parametrize("sharing", ["none", "ab"])
def test_a_state_sees_its_past_and_no_further_than_its_field(sharing: str) -> None:
    """Check K6: dilations [1, 4, 1, 4] reach 61 items back, and nothing reaches forward."""
    model = make("nextitnet", sharing, dilations=[1, 4], num_repeats=2)
    items = torch.randint(1, 61, (80,)).tolist()

    def states(history: list[int]) -> torch.Tensor:
        batch = history_batch([history], 80)
        with torch.no_grad():
            found: torch.Tensor = model.network(model.item_embedding(batch.items), torch.arange(80))  # type: ignore[operator]
        return found

    before = states(items)
    for place in (0, 10, 40):
        changed = items.copy()
        changed[place] = changed[place] % 60 + 1
        moved = (states(changed) - before).abs().amax(1) > 0
        assert not moved[:place].any()
        assert moved[place]
        assert not moved[place + 61 :].any()
        assert moved[place : place + 61].any()
    farthest = items.copy()
    farthest[19] = farthest[19] % 60 + 1
    assert ((states(farthest) - before).abs().amax(1) > 0)[79]  # 60 places on: the last that sees it
