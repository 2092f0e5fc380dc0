"""What the person who waits for a study sees: one line for all trials, and one for each that runs."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.mailbox import Update
from pipelines.progress import Board
from pipelines.stages import Progress
from pipelines.study.news import Finished
from pipelines.train_bridge import show

ALL = "study"


class Watch:
    """Shows the news of works on a board; a callable that `pipelines.study.tuning.run_works` calls.

    Args:
        board: shows lines.
        names: of the works, for people, by key.
    """

    def __init__(self, board: Board, names: Mapping[str, str]) -> None:
        self._board, self._names = board, names
        self._lines: dict[str, Progress] = {}
        self._over: set[str] = set()
        self._all = board.begin(ALL, f"{len(names)} trials")
        self._all.start(len(names), "trials")

    def __call__(self, news: Mapping[str, Update], finished: Finished) -> None:
        """Show what is new.

        Args:
            news: of works that have begun, by key.
            finished: why works that are over failed, ``""`` where they did not, by key.
        """
        for key, update in news.items():
            if key not in self._over:
                show(update, self._line(key))
        ended = {key: reason for key, reason in finished.items() if key not in self._over}
        for key, reason in ended.items():
            self._line(key)
            self._board.end(f"{ALL}/{self._names[key]}", f"failed: {reason}" if reason else "done")
            self._all.advance(1)
        self._over.update(ended)
        if ended and len(self._over) == len(self._names):
            self._board.end(ALL, f"{sum(not reason for reason in finished.values())} of {len(self._names)} trials done")

    def _line(self, key: str) -> Progress:
        if key not in self._lines:
            self._lines[key] = self._board.begin(f"{ALL}/{self._names[key]}", "training")
        return self._lines[key]
