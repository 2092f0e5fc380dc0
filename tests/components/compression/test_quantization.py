"""Rounding of stored tensors: how far it may move numbers, that it repeats to the bit, and what it weighs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from components.artifacts.growth import grow_model
from components.artifacts.models import load_model, round_to_stored, save_model, stored_bytes_by_part
from components.compression.quantization import appended, dequantized, quantized, row_scales
from components.model import Catalog
from components.schema import MODEL_FILE
from components.students import STUDENTS
from components.training.seeds import seed_everything

CATALOG = Catalog(60, 4, np.arange(61)[::-1].copy())


def int8(_: str) -> Any:
    return "int8"


@given(seed=st.integers(0, 10_000), exponent=st.integers(-30, 30))
@settings(max_examples=50, deadline=None)
def test_no_number_moves_by_more_than_half_a_step(seed: int, exponent: int) -> None:
    matrix = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    stored = quantized({"a": matrix}, int8)
    restored = dequantized(stored)["a"]
    step = matrix.abs().amax(1, keepdim=True) / 127
    assert ((restored - matrix).abs() <= 0.501 * step).all()
    assert (stored["a"].abs().amax(1) == 127).all()
    again = quantized({"a": restored}, int8)
    assert torch.equal(again["a"], stored["a"])
    assert torch.equal(again["a.scale"], stored["a.scale"])


def test_each_row_has_a_scale_of_its_own_and_zeros_stay() -> None:
    matrix = torch.tensor([[127.0, -1.0, 0.4], [0.0, 0.0, 0.0], [1e-3, -0.4e-3, 0.0]])
    stored = quantized({"a": matrix}, int8)
    assert stored["a"].tolist() == [[127, -1, 0], [0, 0, 0], [127, -51, 0]]
    assert row_scales(matrix)[:2].tolist() == [1.0, 1.0]
    assert dequantized(stored)["a"][0].tolist() == [127.0, -1.0, 0.0]


def test_vectors_and_whole_numbers_are_left_alone() -> None:
    tensors = {"bias": torch.randn(4), "numbers": torch.arange(6).view(2, 3), "kernel": torch.randn(2, 3, 4)}
    stored = quantized(tensors, int8)
    assert stored["bias"] is tensors["bias"]
    assert stored["numbers"] is tensors["numbers"]
    assert stored["kernel"].dtype == torch.int8
    assert stored["kernel.scale"].shape == (2,)
    assert (dequantized(stored)["kernel"] - tensors["kernel"]).abs().max() < 0.02


def test_rows_behind_the_known_ones_change_none_of_them() -> None:
    stored = quantized({"a": torch.randn(4, 3)}, int8)
    grown = appended(stored, "a", 100 * torch.randn(2, 3))
    assert torch.equal(grown["a"][:4], stored["a"])
    assert torch.equal(grown["a.scale"][:4], stored["a.scale"])
    assert len(grown["a"]) == len(grown["a.scale"]) == 6
    halves = quantized({"a": torch.randn(4, 3)}, lambda _: "bf16")
    assert appended(halves, "a", torch.ones(1, 3))["a"].dtype == torch.bfloat16


WAYS = [
    {"item_precision": "int8"},
    {"item_precision": "int8", "network_precision": "bf16", "output": "tied"},
    {"input": "full", "output": "tied", "item_precision": "int8", "network_precision": "int8"},
    {"output": "flat", "network_precision": "bf16"},
]


def student(kind: str, compression: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    seed_everything(0)
    arguments = {"dim": 16, "max_length": 20, "compression": compression}
    return STUDENTS[kind].make(CATALOG, arguments), arguments


@pytest.mark.parametrize("kind", ["sasrec", "nextitnet", "gru4rec", "bert4rec", "caser"])
@pytest.mark.parametrize("compression", WAYS)
def test_a_rounded_student_is_saved_and_read_to_the_bit(tmp_path: Path, kind: str, compression: dict[str, Any]) -> None:
    model, arguments = student(kind, compression)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert round_to_stored(model, arguments)
    save_model(model, tmp_path, kind=kind, family="student", arguments=arguments, catalog=CATALOG)
    found = load_model(tmp_path).state_dict()
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    assert any(not torch.equal(before[name], tensor) for name, tensor in found.items())
    stored = load_file(tmp_path / MODEL_FILE)
    weight = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    assert weight == stored_bytes_by_part(model, arguments)["total"]
    with torch.device("meta"):
        abstract, _ = student(kind, compression)
    assert stored_bytes_by_part(abstract, arguments) == stored_bytes_by_part(model, arguments)


def test_what_is_not_to_be_rounded_stays() -> None:
    model, arguments = student("sasrec", {"item_precision": "int8"})
    network = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    round_to_stored(model, arguments)
    assert all(torch.equal(network[name], tensor) for name, tensor in model.network.state_dict().items())
    plain, arguments = student("sasrec", {"output": "tied"})
    assert not round_to_stored(plain, arguments)


def test_a_rounded_table_takes_new_items(tmp_path: Path) -> None:
    model, arguments = student("sasrec", {"input": "full", "output": "tied", "item_precision": "int8"})
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    save_model(model, tmp_path / "old", kind="sasrec", family="student", arguments=arguments, catalog=CATALOG)
    rows = torch.randn(3, 16)
    grow_model(tmp_path / "old", tmp_path / "new", {"item_embedding.weight": rows})
    old, new = load_model(tmp_path / "old"), load_model(tmp_path / "new")
    assert torch.equal(new.item_embedding.weight[:61], old.item_embedding.weight)
    assert (new.item_embedding.weight[61:] - rows).abs().max() < 0.02
    assert load_file(tmp_path / "new" / MODEL_FILE)["item_embedding.weight"].dtype == torch.int8
