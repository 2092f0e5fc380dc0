"""``distilrec onnx``: the exported student as an ONNX file, compared in scores and time with what the endpoint does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from components.artifacts.format import verify
from components.artifacts.models import load_model
from components.artifacts.onnx import INPUT, check_writable, write_onnx
from components.data.batching import history_batch
from components.errors import StageError, UserError
from components.inference import Scorer, one_thread
from components.model import Ranker
from components.schema import ITEM, ITEM_ID, ITEMS_FILE, MANIFEST_FILE
from pipelines.cache import storage_errors
from pipelines.served import find_artifact
from pipelines.training_job import artifact_item_ids

FOLDER: Final = "onnx"
FILE: Final = "model.onnx"
CHECKED: Final = 50  # histories whose scores are compared
ROUNDS: Final = 200  # requests of each kind, in turn
K: Final = 10
TOLERANCE: Final = 1e-3  # of scores: both compute with 32-bit numbers, in another order

Answer = Callable[[NDArray[np.int32]], Any]


@dataclass(frozen=True)
class Written:
    """What the command did.

    Attributes:
        file: the ONNX file.
        items: table whose row ``i`` is column ``i`` of the scores.
        bytes: of the file.
        max_difference: of any score of any item from the student's own, over `CHECKED` histories.
        onnx_ms: median time of a request for the 10 best items, one thread.
        torch_ms: the same of the path that the endpoint takes, request by request in turn.
    """

    file: str
    items: str
    bytes: int
    max_difference: float
    onnx_ms: float
    torch_ms: float

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"faster": self.torch_ms / self.onnx_ms}

    def lines(self) -> list[str]:
        """For people."""
        ratio = self.torch_ms / self.onnx_ms
        pace = (
            f"{ratio:.1f} times as fast"
            if ratio >= 1
            else f"slower: {ratio:.2f} times the speed; keep serving as it is"
        )
        return [
            f"written:  {self.file} ({self.bytes:,} bytes), items in {self.items}",
            f"scores:   at most {self.max_difference:.1g} from the student's own, over {CHECKED} histories",
            f"request:  {self.onnx_ms:.3f} ms, with distilrec {self.torch_ms:.3f} ms: {pace}",
        ]


def export_onnx(run: Path, folder: Path | None = None) -> Written:
    """Write the student of `run` as ``model.onnx`` with its items beside it, and compare it with the student itself.

    Args:
        run: a run or an artifact, see `pipelines.served.find_artifact`.
        folder: where to; ``RUN/onnx`` for None.

    Raises:
        UserError: there is no export, its student cannot be written, packages are missing, or the folder is no place.
        ArtifactError: the artifact is damaged, or its items are not known.
        StageError: the file computes other scores than the student; nothing is left behind.
    """
    artifact = find_artifact(run)
    verify(artifact)
    model, item_ids = load_model(artifact), artifact_item_ids(artifact)
    check_writable(model)
    target = folder or run / FOLDER
    _check_target(target)
    with storage_errors(target), one_thread():
        target.mkdir(parents=True, exist_ok=True)
        partial = target / f".{FILE}.new"
        try:
            write_onnx(model, partial)
            answer = _runtime(partial)
            difference = _compare(model, answer)
            numbered = {ITEM: range(1, len(item_ids) + 1), ITEM_ID: item_ids}
            pl.DataFrame(numbered, schema={ITEM: pl.Int32, ITEM_ID: pl.String}).write_parquet(target / ITEMS_FILE)
            partial.replace(target / FILE)
        finally:
            partial.unlink(missing_ok=True)
        times = _measure(model, answer)
    size = (target / FILE).stat().st_size
    return Written(str(target / FILE), str(target / ITEMS_FILE), size, difference, *times)


def _check_target(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give a folder")
    if (folder / MANIFEST_FILE).exists():
        raise UserError(f"{folder}: holds an artifact, whose files are sealed; give another folder")


def _runtime(file: Path) -> Answer:
    """(L,) history -> (N,) scores by ONNX Runtime, one thread."""
    import onnxruntime  # an extra, which `check_writable` looked for

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda history: session.run(None, {INPUT: history[None].astype(np.int64)})[0][0]


def _histories(model: Ranker, number: int) -> list[NDArray[np.int32]]:
    """Random histories of all lengths that the model sees, the shortest and the longest first."""
    random = np.random.default_rng(0)
    lengths = [1, model.max_length, *random.integers(1, model.max_length + 1, number - 2).tolist()]
    return [random.integers(1, model.num_items + 1, length).astype(np.int32) for length in lengths]


@torch.inference_mode()
def _compare(model: Ranker, answer: Answer) -> float:
    """The largest difference of a score."""
    differences = []
    for history in _histories(model, CHECKED):
        own = model.all_scores(history_batch([history], model.max_length))[0, 1:].numpy()
        differences.append(np.abs(answer(history) - own).max())
    worst = float(np.max(differences))  # NaN where one is
    if not worst <= TOLERANCE:
        raise StageError(
            f"onnx: a score differs by {worst:.2g} from the student's own, above {TOLERANCE}; no model is written"
        )
    return worst


def _measure(model: Ranker, answer: Answer) -> tuple[float, float]:
    """Median milliseconds of a request for the best items without those of the history: by the file, by distilrec."""
    scorer = Scorer(model, reproducible=True)

    def by_file(history: NDArray[np.int32]) -> None:
        scores = answer(history)
        scores[history - 1] = -np.inf
        best = np.argpartition(-scores, min(K, len(scores) - 1))[:K]
        best[np.argsort(-scores[best])]

    times: dict[str, list[float]] = {"onnx": [], "torch": []}
    for history in _histories(model, ROUNDS):
        for name, request in (("onnx", by_file), ("torch", lambda one: scorer.top_k([one], K))):
            start = perf_counter()
            request(history)
            times[name].append(1e3 * (perf_counter() - start))
    return median(times["onnx"]), median(times["torch"])
