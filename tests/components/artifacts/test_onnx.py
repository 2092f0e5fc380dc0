"""Students as ONNX files: the file ranks as the student, whatever the length of the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from components.artifacts.onnx import write_onnx  # noqa: E402
from components.data.batching import history_batch  # noqa: E402
from components.errors import UserError  # noqa: E402
from components.model import Catalog, Ranker  # noqa: E402
from components.students import STUDENTS  # noqa: E402

ITEMS, LENGTH = 60, 9
SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("sasrec", {"dim": 16, "inner_dim": 16, "num_heads": 2}),
    ("gru4rec", {"dim": 16, "hidden_dim": 16}),
    ("nextitnet", {"dim": 16, "dilations": [1, 2]}),
]
WAYS: list[dict[str, Any] | None] = [
    None,
    {"num_blocks": 3, "factor": 2},
    {"num_blocks": 2, "factor": 2, "output": "flat"},
    {"num_blocks": 3, "factor": 2, "output": "tied"},
    {"num_blocks": 2, "factor": 2, "output": "full", "item_precision": "int8"},
]


def make(kind: str, arguments: dict[str, Any], length: int = LENGTH) -> Ranker:
    torch.manual_seed(0)
    catalog = Catalog(num_items=ITEMS, num_users=3, counts=np.concatenate([[0], np.arange(ITEMS, 0, -1)]))
    return STUDENTS[kind].make(catalog, {**arguments, "max_length": length}).eval()


@pytest.mark.parametrize(("kind", "arguments"), SHAPES)
@pytest.mark.parametrize("compression", WAYS)
def test_the_file_scores_as_the_student(
    kind: str, arguments: dict[str, Any], compression: dict[str, Any] | None, tmp_path: Path
) -> None:
    model = make(kind, {**arguments, "compression": compression})
    assert_the_same(model, tmp_path / "m.onnx")


@pytest.mark.parametrize("length", [2, 3, 50])
@pytest.mark.parametrize(("kind", "arguments"), SHAPES)
def test_short_and_long_students(kind: str, arguments: dict[str, Any], length: int, tmp_path: Path) -> None:
    assert_the_same(make(kind, arguments, length), tmp_path / "m.onnx")


def assert_the_same(model: Ranker, file: Path) -> None:
    write_onnx(model, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for length in (1, 2, model.max_length - 1, model.max_length):
        history = random.integers(1, ITEMS + 1, length).astype(np.int32)
        with torch.inference_mode():
            own = model.all_scores(history_batch([history], model.max_length))[0, 1:].numpy()
        (found,) = session.run(None, {"items": history[None].astype(np.int64)})
        assert np.abs(found[0] - own).max() < 1e-4
        assert own.std() > 1e-3, "a student whose scores are all alike proves nothing"


def test_a_wide_network_takes_any_length(tmp_path: Path) -> None:
    assert_the_same(make("nextitnet", {"dim": 256}), tmp_path / "m.onnx")


def test_blocks_that_a_sampled_loss_compares_with_are_written_too(tmp_path: Path) -> None:
    blocks = {"num_blocks": 2, "factor": 2, "output": "tied"}
    assert_the_same(make("sasrec", {**SHAPES[0][1], "loss": "bce", "compression": blocks}), tmp_path / "m.onnx")


def test_what_is_no_sequence_of_items_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only sasrec, gru4rec and nextitnet can be written as ONNX"):
        write_onnx(make("caser", {"dim": 16}), tmp_path / "m.onnx")
