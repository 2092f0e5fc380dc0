"""Let a library's own Lightning trainer run, and stop it between rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.peers.session import Session

MANY_EPOCHS = 10**6
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def training_rounds(
    base: type,
    session: Session,
    count: Callable[[Any], int],
    facts: dict[str, Any],
    rank: Callable[[str, str], None] | None = None,
) -> Any:
    """A Lightning callback that counts a batch's targets and hands control to the contest after each round.

    The clock runs from the end of one step to the end of another, so that fetching batches is counted once per step.

    Args:
        base: the ``Callback`` class of the Lightning package that the library uses (there are two).
        session: the conversation with the contest.
        count: a batch -> how many of its positions contribute to the loss.
        facts: what is told about the model when training starts.
        rank: see `Session.begin`.
    """

    class Rounds(base):  # type: ignore[misc]
        """Ticks the session after every optimizer step."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            parameters = sum(parameter.numel() for parameter in pl_module.parameters())
            session.begin(rank, parameters=parameters, **facts)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            session.tick(count(batch), float(loss))

    return Rounds()
