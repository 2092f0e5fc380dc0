"""Histories encoded together give the bits that each gives alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.data.batching import history_batch
from components.layers.packed import Packing
from components.model import Catalog, Ranker
from components.students import STUDENTS

NUM_ITEMS = 200
BLOCKS: dict[str, Any] = {"compression": {"factor": 2, "boundaries": [20, 80]}}
LENGTHS = [0, 1, 2, 30, 7, 12, 3, 11, 12, 5, 1, 20, 9, 8, 40, 6, 4, 12, 10, 2, 13]


def make(kind: str = "sasrec", **arguments: Any) -> Ranker:
    torch.manual_seed(0)
    counts = np.arange(NUM_ITEMS + 1)[::-1].copy()
    sizes = {"dim": 24, "max_length": 12} | arguments
    model = STUDENTS[kind].make(Catalog(NUM_ITEMS, 5, counts), sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def histories() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, NUM_ITEMS + 1, length).tolist() for length in LENGTHS]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"norm": "pre", "num_layers": 1},
        {"num_layers": 3, "num_heads": 3, "activation": "relu"},
        {"dim": 8, "inner_dim": 8, "activation": "silu"},
        {"dim": 6, "inner_dim": 5},  # widths of whose products some rows would be computed differently
        {"compression": {"sharing": "cb", "input": "full", "output": "tied"}},
        BLOCKS,
        {"compression": {"factor": 2, "boundaries": [20, 80], "output": "tree"}},
    ],
    ids=str,
)
@torch.inference_mode()
def test_company_changes_no_bit(arguments: dict[str, Any]) -> None:
    model, asked = make(**arguments), histories()
    alone = torch.cat([model.independent_states(history_batch([each], model.max_length)) for each in asked])
    for size in (2, 5, len(asked)):
        for start in range(0, len(asked), size):
            together = model.independent_states(history_batch(asked[start : start + size], model.max_length))
            assert torch.equal(together, alone[start : start + size])
    backwards = model.independent_states(history_batch(asked[::-1], model.max_length))
    assert torch.equal(backwards.flip(0), alone)


@torch.inference_mode()
def test_vectors_that_are_products_are_made_for_one_history_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.compression.embedding.DENSE_BYTES", 0)
    model, asked = make(**BLOCKS), histories()
    alone = [model.states(history_batch([each], model.max_length)) for each in asked]
    assert torch.equal(model.independent_states(history_batch(asked, model.max_length)), torch.cat(alone))


@torch.inference_mode()
def test_vectors_in_blocks_that_are_kept_are_encoded_together() -> None:
    model = make(**BLOCKS)
    batch = history_batch(histories(), model.max_length)
    torch.testing.assert_close(model.independent_states(batch), model.states(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("layers", [1, 2])
@torch.inference_mode()
def test_states_are_those_of_the_encoder(norm: str, layers: int) -> None:
    model, asked = make(norm=norm, num_layers=layers), histories()
    batch = history_batch(asked, model.max_length)
    torch.testing.assert_close(model.independent_states(batch), model.states(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gru4rec", "nextitnet", "caser"])
@torch.inference_mode()
def test_other_networks_encode_one_row_at_a_time(kind: str) -> None:
    model, asked = make(kind), histories()
    alone = [model.states(history_batch([each], model.max_length)) for each in asked]
    assert torch.equal(model.independent_states(history_batch(asked, model.max_length)), torch.cat(alone))


def test_a_grid_has_zeros_where_nothing_stands() -> None:
    packing = Packing(3, torch.tensor([1, 2]), torch.tensor([0, 3, 4]))
    rows = torch.tensor([[1.0], [2.0], [3.0]])
    assert packing.grid(rows).flatten(1).tolist() == [[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]]
