"""Approximate retrieval with faiss: compressed item vectors name candidates, the model itself ranks them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.errors import ArtifactError, UserError
from components.inference import IntArray, Scorer, one_thread
from components.schema import PAD

CANDIDATES: Final = 500  # at least so many are ranked by the model
FACTOR: Final = 20  # candidates per wanted item
BITS: Final = 4  # per two numbers of a vector: what faiss compares in the processor's registers
TRAINED: Final = 65_536  # vectors from which the index learns how to shorten them
SAMPLE: Final = 200  # histories on which recall is measured
SAMPLE_LENGTH: Final = 10  # items of a history of the sample
MEASURED_K: Final = 10


@dataclass(frozen=True)
class Recall:
    """How much of the exact answer the approximate one holds.

    Attributes:
        recall: mean share of the exact best `k` items.
        k: items per answer.
        histories: how many were compared.
        source: where they come from.
    """

    recall: float
    k: int
    histories: int
    source: str

    def __str__(self) -> str:
        return (
            f"faiss finds {self.recall:.1%} of the exact {self.k} best items ({self.histories} histories {self.source})"
        )

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


class ApproximateScorer:
    """Ranks like `Scorer.top_k`, but only the candidates that an index of shortened item vectors names.

    The index is faiss's fast scan over product-quantized vectors: it passes over all items, at 2 bits per number of a
    vector. Candidates get the scores of the model itself. Answers do not depend on which histories are asked together.

    Args:
        scorer: the model.

    Raises:
        UserError: faiss is not installed, or the model's scores are no inner products of a state and item vectors.
        ArtifactError: some of these are not finite.
    """

    def __init__(self, scorer: Scorer) -> None:
        faiss = _faiss()
        faiss.omp_set_num_threads(1)  # one request is too little to share, and waiting threads starve other replicas
        with torch.inference_mode():
            vectors = scorer.model.head.inner_product_vectors()
        if vectors is None:
            raise UserError(
                f"faiss compares inner products, and a {type(scorer.model.head).__name__} scores otherwise; leave "
                "--retrieval exact"
            )
        self._scorer = scorer
        table = _even(vectors.detach().float().cpu().numpy())
        if not np.isfinite(table).all():
            raise ArtifactError(
                "the model has item vectors that are not numbers: its training diverged; train it again"
            )
        self._index = faiss.IndexPQFastScan(table.shape[1], table.shape[1] // 2, BITS, faiss.METRIC_INNER_PRODUCT)
        chosen = np.random.default_rng(0).permutation(len(table))[:TRAINED]
        self._index.train(_enough(table[chosen]))
        self._index.add(table)

    @torch.inference_mode()
    def top_k(
        self,
        histories: Sequence[NDArray[np.int32]],
        k: int,
        *,
        exclude_seen: bool = True,
        users: Sequence[int] | None = None,
    ) -> tuple[IntArray, NDArray[np.float32]]:
        """As `Scorer.top_k`: (B, k) item numbers and (B, k) scores, best first, then PAD and -inf."""
        items = np.full((len(histories), k), PAD, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for row, history in enumerate(histories):
            seen = np.unique(history) if exclude_seen else history[:0]
            state = self._scorer.states_of([history], None if users is None else [users[row]])
            found = self._candidates(state, max(CANDIDATES, FACTOR * k) + len(seen))
            found = np.setdiff1d(found, seen)  # ascending, so that equal scores keep the order of numbers
            values = self._scores(state, found)
            best = np.argsort(-values, kind="stable")[:k]
            best = best[values[best] > -np.inf]  # false for NaN
            items[row, : len(best)], scores[row, : len(best)] = found[best], values[best]
        return items, scores

    def _candidates(self, state: Tensor, count: int) -> IntArray:
        """(at most `count`,) item numbers for one state (1, D)."""
        _, rows = self._index.search(_even(state.float().cpu().numpy()), min(count, self._scorer.model.num_items))
        found: IntArray = rows[0][rows[0] >= 0] + 1
        return found

    def _scores(self, state: Tensor, items: IntArray) -> NDArray[np.float32]:
        """(C,) the model's own scores."""
        candidates = torch.from_numpy(items).to(state.device)
        scores: NDArray[np.float32] = self._scorer.model.head.scores(state, candidates)[0].float().cpu().numpy()
        return scores

    def measure(self, histories: Sequence[NDArray[np.int32]], source: str) -> Recall:
        """Compare with exact search on `histories`."""
        k = min(MEASURED_K, self._scorer.model.num_items)
        with one_thread():  # as replicas answer
            exact, _ = self._scorer.top_k(histories, k)
            found, _ = self.top_k(histories, k)
        shares = [
            len(np.intersect1d(one[one != PAD], other)) / max(1, int((one != PAD).sum()))
            for one, other in zip(exact, found, strict=True)
        ]
        return Recall(round(float(np.mean(shares)), 4), k, len(histories), source)


def drawn_histories(counts: NDArray[np.float32], seed: int = 0) -> list[NDArray[np.int32]]:
    """`SAMPLE` histories of `SAMPLE_LENGTH` items, drawn as often as they were interacted with.

    Args:
        counts: (N,) interactions of items 1..N.
        seed: of the draw.
    """
    weights = counts.astype(np.float64) + 1.0
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(counts), (SAMPLE, SAMPLE_LENGTH), p=weights / weights.sum())
    return list((drawn + 1).astype(np.int32))


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise UserError("approximate retrieval needs faiss: pip install 'distilrec[faiss]'") from error


def _even(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of an even width: a column of zeros changes no product."""
    padded = np.pad(vectors, ((0, 0), (0, vectors.shape[1] % 2)))
    return np.ascontiguousarray(padded, dtype=np.float32)


def _enough(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """At least as many vectors as an index has values per part, by repetition in a tiny catalogue."""
    return np.resize(vectors, (max(len(vectors), 2**BITS), vectors.shape[1]))
