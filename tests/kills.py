"""``kill -9`` for tests of a single process: an observer that stops the training in the middle."""

from __future__ import annotations

from pathlib import Path

from components.training.observer import Place


class KilledError(Exception):
    """Stands for kill -9."""


class KillAt:
    """Stops the training behind step `step` of all that it sees; -1 lets it end.

    Attributes:
        begun: where the training began.
    """

    def __init__(self, step: int = -1) -> None:
        self.left = step
        self.begun: Place | None = None

    def begin(self, place: Place) -> None:
        self.begun = place

    def step(self, epoch: int, targets: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError

    def epoch(self, row: dict[str, float], checkpoint: Path) -> None: ...
