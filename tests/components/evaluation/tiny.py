"""Small sequences and rankers with known scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from components.data.batching import Batch
from components.data.flat_sequences import EvaluationCases, Sequences
from components.model import OutputHead, Ranker


def make_sequences(histories: list[list[int]], train_cut: int = 2) -> Sequences:
    """Leave-one-out sequences: the last item tests, the one before validates."""
    lengths = np.array([len(history) for history in histories])
    return Sequences(
        users=np.arange(1, len(histories) + 1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=np.concatenate([np.asarray(history, dtype=np.int32) for history in histories]),
        train_end=(lengths - train_cut).astype(np.int32),
        valid_end=(lengths - 1).astype(np.int32),
    )


def random_sequences(users: int, items: int, seed: int = 0, shortest: int = 3, longest: int = 12) -> Sequences:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(shortest, longest + 1, size=users)
    return make_sequences([generator.integers(1, items + 1, size=length).tolist() for length in lengths])


class ColumnsHead(OutputHead):
    """The state IS the row of scores of items 1..N."""

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        return states.sum() * 0

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        return states[:, candidates - 1]

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        return states[:, start - 1 : stop - 1]


class TableRanker(Ranker):
    """Scores by the last item of the history: row ``i`` of `table` (N + 1, N)."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__()
        self.head = ColumnsHead()
        self.num_items, self.max_length = table.shape[1], 4
        self.table = torch.nn.Parameter(torch.from_numpy(np.asarray(table, dtype=np.float32)))

    def states(self, batch: Batch) -> Tensor:
        return self.table[batch.items.flatten()[batch.positions]]


def plain_position(scores: np.ndarray, target: int, ties: str, seen: set[int]) -> int:
    """The slow reference: walk over all items, count those that stand before the target."""
    before = equal = 0
    for item in range(1, len(scores) + 1):
        if item == target or item in seen:
            continue
        before += scores[item - 1] > scores[target - 1]
        equal += scores[item - 1] == scores[target - 1]
    return 1 + before + {"against": equal, "average": (equal + 1) // 2, "for": 0}[ties]


def plain_positions(table: np.ndarray, cases: EvaluationCases, ties: str = "against", mask: bool = False) -> list[int]:
    positions = []
    for case in range(len(cases)):
        history = cases.history(case)
        seen = set(history.tolist()) if mask else set()
        positions.append(plain_position(table[history[-1]], int(cases.targets[case]), ties, seen))
    return positions
