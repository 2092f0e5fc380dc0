"""What the person who waits for a search sees: how many students are over, which run, and the best so far."""

from __future__ import annotations

from pathlib import Path

from pipelines.search.trial import read_records
from pipelines.stages import Progress


class SearchWatch:
    """Shows on the stage's line what the records say; called twice a second.

    Args:
        progress: the stage's line.
        total: students that will be tried.
        trials: folder of their records.
    """

    def __init__(self, progress: Progress, total: int, trials: Path) -> None:
        self._progress, self._trials = progress, trials
        self._over = {record.key for record in read_records(trials) if record.over}
        progress.start(total, "students", min(len(self._over), total))

    def __call__(self) -> None:
        """Show what is new."""
        records = read_records(self._trials)
        running = [f"student {each.number}: epoch {len(each.epochs)}" for each in records if each.state == "running"]
        self._progress.note(", ".join(running) or "waiting for a free place on the cluster")
        for record in records:
            if record.state == "running" or record.key in self._over:
                continue
            self._over.add(record.key)
            if record.state == "failed":
                self._progress.say(f"student {record.number} failed: {record.reason}")
            done = [each.best for each in records if each.state == "done"]
            shown = {"best": max(done)} if done else {}
            self._progress.advance(1, **shown)
