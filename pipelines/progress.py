"""What the person who waits sees: one live line per running node on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from pipelines.stages import Progress

logger = logging.getLogger(__name__)
PLAIN_INTERVAL: Final = 5.0  # seconds between two plain lines of one node


@dataclass
class Tracker:
    """The state of one node's progress; `describe` is a pure function of it and the time.

    Of what is `done`, `before` was done before `started` and says nothing of the speed.
    """

    started: float
    total: int | None = None
    done: int = 0
    before: int = 0
    unit: str = ""
    shown: dict[str, float | str] = field(default_factory=dict)
    text: str = ""

    def describe(self, now: float) -> str:
        """One line: count, rate, time left, the latest values, the latest note."""
        parts = [self._count(), *self._speed(now - self.started)] if self.unit else []
        parts += [f"{name} {_value(value)}" for name, value in self.shown.items()]
        return ", ".join(part for part in [*parts, self.text] if part)

    def _count(self) -> str:
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{self.done:,}{of} {self.unit}"

    def _speed(self, elapsed: float) -> list[str]:
        if self.done <= self.before or elapsed <= 0:
            return []
        rate = (self.done - self.before) / elapsed
        parts = [f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"]
        if self.total is not None and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return parts


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(3.2), duration(75), duration(7322)
    ('3 s', '1 min 15 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


class Board(Protocol):
    """Shows all running nodes."""

    def __enter__(self) -> Board:
        """Begin to show."""

    def __exit__(self, *details: object) -> None:
        """Stop showing; also after an error."""

    def begin(self, node: str, reason: str) -> Progress:
        """A node starts; its stage reports to what this returns."""

    def end(self, node: str, outcome: str) -> None:
        """A node is over; `outcome` is one short line."""

    def say(self, text: str) -> None:
        """Print a line that stays."""


class _Reporter:
    """The `Progress` of one node.

    Args:
        tracker: its state.
        changed: called after every change.
        clock: tells the time.
        say: prints a line that stays.
    """

    def __init__(
        self, tracker: Tracker, changed: Callable[[], None], clock: Callable[[], float], say: Callable[[str], None]
    ) -> None:
        self.tracker, self._changed, self._clock, self._say = tracker, changed, clock, say
        self._lock = threading.Lock()

    def start(self, total: int | None, unit: str, done: int = 0) -> None:
        """Begin counting."""
        with self._lock:
            tracker = self.tracker
            tracker.started, tracker.total, tracker.unit = self._clock(), total, unit
            tracker.done = tracker.before = done
            tracker.shown, tracker.text = {}, ""
        self._changed()

    def advance(self, n: int = 1, **shown: float | str) -> None:
        """Count `n` more."""
        with self._lock:
            self.tracker.done += n
            self.tracker.shown = {**self.tracker.shown, **shown}
        self._changed()

    def note(self, text: str) -> None:
        """Say what happens now."""
        with self._lock:
            self.tracker.text = text
        self._changed()

    def say(self, text: str) -> None:
        """Say what stays."""
        logger.info(text)
        self._say(text)


class PlainBoard:
    """Plain lines for logs and pipes: at most one per node every few seconds.

    Args:
        console: where the lines go.
        interval: seconds between two lines of one node.
        clock: tells the time; tests bring their own.
    """

    def __init__(
        self, console: Console, interval: float = PLAIN_INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._interval, self._clock = console, interval, clock
        self._last: dict[str, float] = {}

    def __enter__(self) -> PlainBoard:
        return self

    def __exit__(self, *details: object) -> None:
        return None

    def begin(self, node: str, reason: str) -> Progress:
        """A node starts."""
        self.say(f"{node}: starts ({reason})")
        tracker = Tracker(self._clock())
        self._last[node] = self._clock()

        def changed() -> None:
            now = self._clock()
            if now - self._last[node] >= self._interval:
                self._last[node] = now
                self.say(f"{node}: {tracker.describe(now)}")

        return _Reporter(tracker, changed, self._clock, lambda text: self.say(f"{node}: {text}"))

    def end(self, node: str, outcome: str) -> None:
        """A node is over."""
        self.say(f"{node}: {outcome}")

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Status(ProgressColumn):
    """The description of a tracker, fresh at every refresh."""

    max_refresh = 0.25

    def render(self, task: Task) -> Text:
        """The node's line behind the bar."""
        return Text(task.fields["tracker"].describe(time.monotonic()), style="dim", no_wrap=True, overflow="ellipsis")


class LiveBoard:
    """Live lines on a terminal, one per running node.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), _Status())
        self._live = RichProgress(*columns, console=console, transient=True, refresh_per_second=4)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> LiveBoard:
        self._live.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._live.stop()

    def begin(self, node: str, reason: str) -> Progress:
        """A node starts."""
        tracker = Tracker(time.monotonic(), text=reason)
        task = self._live.add_task(node, total=None, tracker=tracker)
        self._tasks[node] = task

        def changed() -> None:
            self._live.update(task, total=tracker.total, completed=tracker.done)

        return _Reporter(tracker, changed, time.monotonic, lambda text: self.say(f"{node}: {text}"))

    def end(self, node: str, outcome: str) -> None:
        """A node is over."""
        self._live.remove_task(self._tasks.pop(node))
        self.say(f"{node}: {outcome}")

    def say(self, text: str) -> None:
        """Print a line above the live ones."""
        self._live.console.print(text, highlight=False, markup=False)


def make_board(console: Console) -> Board:
    """The board that suits the console."""
    return LiveBoard(console) if console.is_terminal else PlainBoard(console)
