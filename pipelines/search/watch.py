"""What the person who waits for a search sees: how many students are over, which run, and the best so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.search.trial import Record, read_records
from pipelines.stages import Progress


class SearchWatch:
    """Shows on the stage's line what the records say; called twice a second.

    Args:
        progress: the stage's line.
        total: students that will be tried.
        trials: folder of the records.
        belongs: whether a student is one of this search; others share the folder.
        known: students of an earlier start; failed ones are tried again.
    """

    def __init__(
        self,
        progress: Progress,
        total: int,
        trials: Path,
        belongs: Callable[[Record], bool],
        known: Sequence[Record] = (),
    ) -> None:
        self._progress, self._trials, self._belongs = progress, trials, belongs
        self._over = {record.key for record in known if record.over}
        self._failed_before = {record.key: record for record in known if record.state == "failed"}
        progress.start(total, "students", min(len(self._over), total))

    def __call__(self) -> None:
        """Show what is new."""
        records = [record for record in read_records(self._trials) if self._belongs(record)]
        running = [f"student {each.number}: epoch {len(each.epochs)}" for each in records if each.state == "running"]
        self._progress.note(", ".join(running) or "waiting for a free place on the cluster")
        for record in records:
            waits = record == self._failed_before.get(record.key)
            if record.state == "running" or waits or record.key in self._over:
                continue
            self._over.add(record.key)
            if record.state == "failed":
                self._progress.say(f"student {record.number} failed: {record.reason}")
            done = [each.best for each in records if each.state == "done"]
            shown = {"best": max(done)} if done else {}
            self._progress.advance(1, **shown)
