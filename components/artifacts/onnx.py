"""A sequential student as an ONNX file: one history in, the scores of all items out, for runtimes without PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from components.compression.dense_graph import block_scores, block_vectors, tree_scores
from components.compression.embedding import BlockEmbedding
from components.compression.heads import TreeHead
from components.errors import UserError
from components.model import Ranker
from components.students.sequential import SequentialStudent

INPUT: Final = "items"
OUTPUT: Final = "scores"
EXAMPLE: Final = 7  # items of the history that the graph is traced with; any number but 0 and 1 does


class OneHistory(nn.Module):
    """What the file computes.

    Args:
        model: a sequential student.
    """

    def __init__(self, model: SequentialStudent) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> Tensor:
        """(1, L) item numbers, oldest first -> (1, N) scores; column ``i`` is item ``i + 1``."""
        model, last = self.model, torch.arange(items.shape[1])[-1:]
        embedding, head = model.item_embedding, model.head
        vectors = block_vectors(embedding, items) if isinstance(embedding, BlockEmbedding) else embedding(items)
        states = model.network(vectors, last, True)
        if isinstance(head, TreeHead):
            return tree_scores(head, states)
        if isinstance(compared := getattr(head, "item_embedding", None), BlockEmbedding):
            return block_scores(compared, states)
        return head.block(states, 1, model.num_items + 1)


def check_writable(model: Ranker) -> None:
    """Refuse what `write_onnx` cannot write.

    Raises:
        UserError: the model is no SASRec, GRU4Rec or NextItNet, or the packages of the extra ``onnx`` are missing.
    """
    if not isinstance(model, SequentialStudent):
        raise UserError("onnx: only sasrec, gru4rec and nextitnet can be written as ONNX")
    try:
        import onnx  # noqa: F401 - torch.onnx needs it
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"onnx: {error}; install what it needs with: pip install 'distilrec[onnx]'") from error


def write_onnx(model: Ranker, file: Path) -> None:
    """Write `model` as an ONNX file with the input ``items`` (1, L), L of 1 to `max_length`, and the output ``scores``.

    Weights are stored as 32-bit numbers, in blocks where the student is compressed.

    Raises:
        UserError: see `check_writable`.
    """
    check_writable(model)
    assert isinstance(model, SequentialStudent)
    example = torch.ones((1, min(EXAMPLE, model.max_length)), dtype=torch.int64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # remarks of the exporter on itself, and on sizes that are constants indeed
        torch.onnx.export(
            OneHistory(model).eval(),
            (example,),
            str(file),
            dynamo=False,  # the newer exporter unrolls a GRU over the length of the example
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {1: "length"}},
        )
