"""News on their way from a worker to the driver. Its process holds no more than this: no PyTorch, no model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from components.training.observer import Place


@dataclass
class Update:
    """News of a training job since the last look; `begun` where it began, or went on after a kill."""

    begun: Place | None = None
    done: int = 0
    epoch: int = 0
    epochs: int = 0
    shown: dict[str, float] | None = None


class Mailbox:
    """Holds the news until the driver asks; an actor."""

    def __init__(self) -> None:
        self._update = Update()

    def post(self, update: Update) -> None:
        """Merge `update` into what waits; what a worker did since its last checkpoint is lost with it."""
        waiting = replace(self._update, done=0) if update.begun else self._update
        self._update = Update(
            update.begun or waiting.begun,
            waiting.done + update.done,
            update.epoch or waiting.epoch,
            update.epochs or waiting.epochs,
            {**(waiting.shown or {}), **(update.shown or {})},
        )

    def take(self) -> Update:
        """Hand the news over."""
        taken, self._update = self._update, replace(self._update, begun=None, done=0)
        return taken
