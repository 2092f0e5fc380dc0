from __future__ import annotations

import numpy as np
import pytest
import torch

from components.data.batching import history_batch
from components.layers.transformer import TransformerEncoder
from components.model import Catalog, Ranker
from components.students import STUDENTS


def make(num_items: int = 20, **arguments: object) -> Ranker:
    torch.manual_seed(0)
    catalog = Catalog(num_items, 5, np.zeros(num_items + 1, np.int64))
    return STUDENTS["sasrec"].make(catalog, {"dim": 16, "max_length": 8, "inner_dim": 32, **arguments})


def test_parameter_count_of_the_specification() -> None:
    """S5: 5,328 rows (PAD included), d = 300, inner 256."""
    model = make(5327, dim=300, max_length=50, inner_dim=256)
    assert model.parameter_parts()["total"] == 2_647_112
    wide = TransformerEncoder(300, 2, 2, 1200, 50)
    assert sum(parameter.numel() for parameter in wide.parameters()) == 2_183_400


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_future_does_not_change_a_state(norm: str) -> None:
    """S6, causality: changing what follows position t leaves the state at t as it was."""
    model = make(norm=norm).eval()
    states = [model.states(batch_of_all([1, 2, 3, *tail])) for tail in ([4, 5], [9, 9])]
    torch.testing.assert_close(states[0][:3], states[1][:3])
    assert not torch.allclose(states[0][3:], states[1][3:])


def batch_of_all(history: list[int]):
    from dataclasses import replace

    batch = history_batch([history], 8)
    every = torch.arange(len(history))
    return replace(batch, positions=every, instances=every)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_changes_nothing(norm: str) -> None:
    """S6, padding: a longer neighbor in the batch pads the row and leaves its scores as they were."""
    model = make(norm=norm).eval()
    alone = model.all_scores(history_batch([[3, 1]], 8))
    beside = model.all_scores(history_batch([[3, 1], [1, 2, 3, 4, 5, 6, 7]], 8))
    torch.testing.assert_close(alone[0], beside[0])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_last_position_alone_equals_the_full_pass(norm: str) -> None:
    model = make(norm=norm).eval()
    history = [4, 8, 15, 16]
    torch.testing.assert_close(model.states(history_batch([history], 8))[0], model.states(batch_of_all(history))[-1])


def test_scores_are_columns_of_all_scores() -> None:
    """S10."""
    model = make().eval()
    batch = history_batch([[1, 2], [3]], 8)
    candidates = torch.tensor([5, 1, 20])
    torch.testing.assert_close(model.scores(batch, candidates), model.all_scores(batch)[:, candidates])
    assert torch.isinf(model.all_scores(batch)[:, 0]).all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim=16, num_heads=3"):
        make(num_heads=3)
