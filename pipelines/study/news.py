"""News of all trials on their way to the driver; as `pipelines.mailbox`, it needs no PyTorch."""

from __future__ import annotations

from pipelines.mailbox import Mailbox, Update

Finished = dict[str, str]  # why works that are over failed, "" where they did not, by name


class News:
    """The mailboxes of all trials in one actor, and how those ended that are over."""

    def __init__(self) -> None:
        self._boxes: dict[str, Mailbox] = {}
        self._finished: Finished = {}

    def post(self, name: str, update: Update) -> None:
        """Put news of the work called `name` to what waits."""
        self._boxes.setdefault(name, Mailbox()).post(update)

    def finish(self, name: str, failure: str) -> None:
        """The work called `name` is over."""
        self._finished[name] = failure

    def take(self) -> tuple[dict[str, Update], Finished]:
        """Hand over the news of all work that has begun, and how work ended."""
        return {name: box.take() for name, box in self._boxes.items()}, self._finished
