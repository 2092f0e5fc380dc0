"""What is noted of one request while it is answered: for the log line and the metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Record:
    """One request. Times are of `time.perf_counter`, 0 where the request did not get there.

    Attributes:
        request_id: see `serve.request_ids`.
        key: name of the API key that was used.
        version: of the model that answered; the last one where several did.
        started: the head of the request is here.
        received: the whole body is here.
        asked: the model is asked.
        answered: it has answered.
        model_s: seconds of the model's own work, for all requests of the batch together; the rest of the time between
            `asked` and `answered` was spent waiting.
        batch_size: queries that were answered together.
    """

    request_id: str = ""
    key: str | None = None
    version: str = ""
    started: float = field(default_factory=time.perf_counter)
    received: float = 0.0
    asked: float = 0.0
    answered: float = 0.0
    model_s: float = 0.0
    batch_size: int = 0

    @contextmanager
    def asking(self, version: str) -> Iterator[None]:
        """Around the question to a model."""
        self.version = version
        self.asked = self.asked or time.perf_counter()
        yield
        self.answered = time.perf_counter()

    def stages(self, ended: float) -> dict[str, float]:
        """Seconds per stage of a request that a model answered; empty for any other."""
        if not self.answered:
            return {}
        received = self.received or self.started
        return {
            "receive": received - self.started,
            "parse": self.asked - received,
            "queue": max(0.0, self.answered - self.asked - self.model_s),
            "model": self.model_s,
            "render": ended - self.answered,
        }


_CURRENT: ContextVar[Record | None] = ContextVar("distilrec_record", default=None)


def begin(record: Record) -> None:
    """Make `record` the current one of this task."""
    _CURRENT.set(record)


def current() -> Record:
    """The record of the request that this task answers; one that nobody reads outside of a request."""
    return _CURRENT.get() or Record()
