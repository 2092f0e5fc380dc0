"""What a training tells the outside. It imports nothing heavy: processes that only listen need no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Place:
    """Where a training stands.

    Attributes:
        epochs: how many there are at most.
        epoch: how many are done.
        step: optimizer steps that are done of the next one.
        targets: of all epochs.
        done: targets that are done.
    """

    epochs: int
    epoch: int
    step: int
    targets: int
    done: int

    def describe(self) -> str:
        """Where it goes on, counted from 1; nothing for a training that begins.

        >>> Place(5, 2, 40, 10_000, 4_400).describe(), Place(5, 5, 0, 10_000, 10_000).describe()
        ('resumed at epoch 3, step 41', 'resumed behind the last epoch')
        """
        if self.epoch >= self.epochs:
            return "resumed behind the last epoch"
        return f"resumed at epoch {self.epoch + 1}, step {self.step + 1}" if self.epoch or self.step else ""


class Observer(Protocol):
    """What the loop tells the outside; the Ray bridge and the progress line implement it."""

    def begin(self, place: Place) -> None:
        """Training begins, or goes on, at `place`."""

    def step(self, epoch: int, targets: int) -> None:
        """One optimizer step of `epoch` (from 1), over `targets` targets of all workers, is done."""

    def epoch(self, row: dict[str, float], checkpoint: Path) -> None:
        """An epoch is done and its checkpoint, if this worker writes one, lies at `checkpoint`."""
