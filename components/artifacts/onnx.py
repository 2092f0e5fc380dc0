"""A sequential student as an ONNX file: one history in, the scores of all items out, for runtimes without PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
        model, last = self.model, torch.full((1,), items.shape[1] - 1)
        embedding, head = model.item_embedding, model.head
        vectors = block_vectors(embedding, items) if isinstance(embedding, BlockEmbedding) else embedding(items)
        states = model.network(vectors, last, True)
        if isinstance(head, TreeHead):
            return tree_scores(head, states)
        if isinstance(compared := getattr(head, "item_embedding", None), BlockEmbedding):
            return block_scores(compared, states)
        return head.block(states, 1, model.num_items + 1)


def write_onnx(model: Ranker, file: Path) -> None:
    """Write `model` as an ONNX file with the input ``items`` (1, L), L of 1 to `max_length`, and the output ``scores``.

    Weights are stored as 32-bit numbers, in blocks where the student is compressed.

    Raises:
        UserError: the model is no SASRec, GRU4Rec or NextItNet, or the packages of the extra ``onnx`` are missing.
    """
    if not isinstance(model, SequentialStudent):
        raise UserError("onnx: only sasrec, gru4rec and nextitnet can be written as ONNX")
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it, and says so less clearly
    except ImportError as error:
        raise UserError(f"onnx: {error}; install what it needs with: pip install 'distilrec[onnx]'") from error
    length = torch.export.Dim("length", min=1, max=model.max_length)
    example = torch.ones((1, min(EXAMPLE, model.max_length)), dtype=torch.int64)
    with quiet(), torch.no_grad():  # with gradients the length becomes that of the example
        program = torch.onnx.export(
            OneHistory(model).eval(),
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({1: length} if model.max_length > 1 else None,),
            verbose=False,
        )
        assert program is not None
        program.save(str(file))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own code and on packages that nobody asked for from the terminal."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            exporter.setLevel(level)
