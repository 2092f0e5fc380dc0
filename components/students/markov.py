"""First-order Markov: what followed the last item, counted. Many a trained model does worse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from components.data.batching import Batch
from components.data.flat_sequences import Sequences
from components.model import Catalog, Ranker
from components.students.counted import CountedHead, entries
from components.students.mostpop import smoothed_shares


class MarkovConfig(BaseModel):
    """Arguments of the Markov baseline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(1.0, gt=0, description="weight of popularity, in transitions")
    window: int = Field(1, ge=1, description="items ahead that count as successors; 1 is the plain first order")
    decay: float = Field(0.5, gt=0, le=1, description="factor on the weight of a successor per item skipped")


class TransitionHead(CountedHead):
    """Score = ``log(count(i -> j) + alpha * share(j))``, whose softmax is the transition probability.

    Successors that were never seen thus stand in the order of their popularity. A state is the last item's number.

    Args:
        prior: (N,) log of ``alpha * share`` of items 1..N.
        offsets: (N + 2,) borders of the rows 0..N in `successors`; row PAD is empty.
        successors: (T,) item numbers that followed, ascending within a row.
        values: (T,) their scores.
    """

    def __init__(self, prior: Tensor, offsets: Tensor, successors: Tensor, values: Tensor) -> None:
        super().__init__(prior)
        self.register_buffer("offsets", offsets)
        self.register_buffer("successors", successors)
        self.register_buffer("values", values)
        self.offsets: Tensor
        self.successors: Tensor
        self.values: Tensor

    def dense(self, states: Tensor, prior: Tensor, column: Tensor) -> Tensor:
        """See `CountedHead.dense`; states are (P, 1)."""
        scores = prior.repeat(len(states), 1)
        rows, entry = entries(self.offsets[states[:, 0]], self.offsets[states[:, 0] + 1])
        columns = column[self.successors[entry].long()]
        kept = torch.nonzero(columns >= 0)[:, 0]
        scores[rows[kept], columns[kept]] = self.values[entry[kept]]
        return scores


class Markov(Ranker):
    """Ranks by the transitions out of the last item.

    Args:
        head: the transitions.
    """

    def __init__(self, head: TransitionHead) -> None:
        super().__init__()
        self.head: TransitionHead = head
        self.num_items, self.max_length = len(head.prior), 1

    def states(self, batch: Batch) -> Tensor:
        """(P, 1) the item at each predicted position."""
        return batch.items.reshape(-1)[batch.positions][:, None]

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the saved transitions, however many there are."""
        for name in ("successors", "values"):
            setattr(self.head, name, torch.empty_like(tensors[f"head.{name}"]))
        super().load_tensors(tensors)


def count_transitions(sequences: Sequences, num_items: int, window: int = 1, decay: float = 0.5) -> csr_array:
    """(N + 1, N + 1) weights of ``i -> j`` over the training parts; ``decay ** (k - 1)`` for an item k steps ahead."""
    starts = np.repeat(sequences.offsets[:-1], sequences.lengths)
    place = np.arange(len(sequences.items)) - starts
    training = place < np.repeat(sequences.train_end, sequences.lengths)
    counts = csr_array((num_items + 1, num_items + 1), dtype=np.float64)
    for step in range(1, window + 1):
        after = np.flatnonzero(training & (place >= step))
        pair = sequences.items[after - step], sequences.items[after]
        weights = np.full(len(after), decay ** (step - 1))
        counts = counts + coo_array((weights, pair), shape=counts.shape).tocsr()
    counts.sort_indices()
    return counts


def build(catalog: Catalog, config: MarkovConfig) -> Markov:
    """Count the transitions of the catalog's sequences; without sequences there are none."""
    prior: NDArray[np.float64] = config.alpha * smoothed_shares(catalog.counts)
    counts = csr_array((catalog.num_items + 1, catalog.num_items + 1), dtype=np.float64)
    if catalog.sequences is not None:
        counts = count_transitions(catalog.sequences, catalog.num_items, config.window, config.decay)
    values = np.log(counts.data + prior[counts.indices - 1])
    head = TransitionHead(
        torch.from_numpy(np.log(prior).astype(np.float32)),
        torch.from_numpy(counts.indptr.astype(np.int64)),
        torch.from_numpy(counts.indices.astype(np.int32)),
        torch.from_numpy(values.astype(np.float32)),
    )
    return Markov(head)
