"""What a stream is judged by: sums that a batch adds to, so that their size does not depend on the stream's length."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from components.embedding_size.growing import reserve
from components.embedding_size.learner import Predicted

MAX_FREQUENCY: Final = 100  # Figure 4: metrics for frequencies 1 to 100
MAX_SIZED: Final = 50  # Figure 5: sizes for frequencies 1 to 50
WINDOWS: Final = 50  # points of the curve over the stream
SUMS: Final = 5  # rows, losses, right ones, numbers of the users' and of the items' embeddings


class Measures:
    """Loss, accuracy and chosen sizes: of the test part, of windows of the stream, by frequency and by user.

    Args:
        total: interactions of the stream.
        test_from: where the test part begins, which the method goes on learning through.
    """

    def __init__(self, total: int, test_from: int) -> None:
        self.total, self.test_from, self.seen = total, test_from, 0
        self.test = torch.zeros(SUMS, dtype=torch.float64)
        self.windows = torch.zeros(WINDOWS, SUMS, dtype=torch.float64)
        self.by_frequency = torch.zeros(2, MAX_FREQUENCY + 1, 3, dtype=torch.float64)  # side, frequency, first three
        self.sizes = torch.zeros(2, MAX_SIZED + 1, 2, dtype=torch.float64)  # side, frequency, rows and numbers
        self.by_user = torch.zeros(0, 3, dtype=torch.float64)  # of the test part

    def add(self, predicted: Predicted) -> None:
        """Count a batch; it lies before the test part or in it."""
        count = len(predicted.losses)
        ones = torch.ones(count, dtype=torch.float64)
        numbers = (predicted.losses, predicted.correct, predicted.user_sizes, predicted.item_sizes)
        rows = torch.stack([ones, *(one.double() for one in numbers)], 1)  # (B, 5)
        window = (torch.arange(self.seen, self.seen + count) * WINDOWS) // max(self.total, 1)
        self.windows.index_add_(0, window.clamp(max=WINDOWS - 1), rows)
        sides = (predicted.users, rows[:, [0, 3]]), (predicted.items, rows[:, [0, 4]])
        for index, (visits, sizes) in enumerate(sides):
            self._by_frequency(self.sizes[index], visits.frequency, sizes)
        if self.seen >= self.test_from:
            self.test += rows.sum(0)
            for index, (visits, _) in enumerate(sides):
                self._by_frequency(self.by_frequency[index], visits.frequency, rows[:, :3])
            self.by_user = reserve(self.by_user, int(predicted.users.rows.max()) + 1)
            self.by_user.index_add_(0, predicted.users.rows, rows[:, :3])
        self.seen += count

    @staticmethod
    def _by_frequency(table: Tensor, frequency: Tensor, rows: Tensor) -> None:
        known = frequency < len(table)
        table.index_add_(0, frequency[known], rows[known])

    def summary(self) -> dict[str, Any]:
        """As JSON: means, and None where nothing was counted."""
        rows, losses, right, *_ = self.test.tolist()
        return {
            "ratings": self.seen,
            "test_ratings": int(rows),
            "accuracy": right / rows if rows else None,
            "loss": losses / rows if rows else None,
            "windows": {
                "until": [(index + 1) * self.total // WINDOWS for index in range(WINDOWS)],
                **{name: _means(self.windows, column) for name, column in (("loss", 1), ("accuracy", 2))},
                **{name: _means(self.windows, column) for name, column in (("user_size", 3), ("item_size", 4))},
            },
            "by_frequency": {
                side: {
                    "rows": self.by_frequency[index, 1:, 0].long().tolist(),
                    "loss": _means(self.by_frequency[index, 1:], 1),
                    "accuracy": _means(self.by_frequency[index, 1:], 2),
                    "size": _means(self.sizes[index, 1:], 1),
                }
                for index, side in enumerate(("users", "items"))
            },
        }

    def user_means(self) -> Tensor:
        """(U, 3) ratings of the test part, mean loss and mean accuracy, by user; zeros where there is none."""
        means = self.by_user.clone()
        means[:, 1:] /= means[:, :1].clamp(min=1)
        return means

    def tensors(self) -> dict[str, Tensor]:
        """All that `restore` needs, beside the arguments."""
        names = ("test", "windows", "by_frequency", "sizes", "by_user")
        return {**{name: getattr(self, name).clone() for name in names}, "seen": torch.tensor([self.seen])}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand as when `tensors` were taken."""
        for name, one in tensors.items():
            if name != "seen":
                setattr(self, name, one.clone())
        self.seen = int(tensors["seen"])


def _means(table: Tensor, column: int) -> list[float | None]:
    return [row[column] / row[0] if row[0] else None for row in table.tolist()]
