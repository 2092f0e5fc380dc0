"""What the endpoint counts, in Prometheus text. One replica counts its own requests; the label tells them apart."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from components.errors import StorageError
from components.recommender import Recommendation
from serve.admission import Admission
from serve.models import Models
from serve.record import Record
from serve.snapshots import Snapshots
from serve.trouble import Trouble

logger = logging.getLogger("distilrec.serve")
BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
STAGE_BUCKETS: Final = (0.0001, 0.0005, *BUCKETS)
STORE_CALLS: Final = (("events", "append"), ("events", "read"), ("items", "append"))
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Telemetry:
    """Counters of one replica.

    Args:
        replica: what tells this replica's series from another's.
        models: who serves; asked when the metrics are read.
        admission: counts the requests in flight.
        snapshots: where the other replicas show theirs.
    """

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(
        self,
        replica: str = "local",
        models: Callable[[], Models] = Models,
        admission: Admission | None = None,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._replica, self._models, self._admission, self._snapshots = replica, models, admission, snapshots
        self._publishing = Trouble(logger, "the other replicas cannot be shown the metrics of this one")
        self._merging = Trouble(logger, "the metrics of other replicas cannot be read")
        self.registry = CollectorRegistry()
        self._children: dict[tuple[Any, ...], Any] = {}  # finding a labelled series costs more than counting in it
        self._requests = self._make(Counter, "distilrec_requests", "Requests answered", "path", "status", "version")
        self._seconds = self._make(
            Histogram, "distilrec_request_seconds", "Time to answer", "path", "version", buckets=BUCKETS
        )
        self._stages = self._make(
            Histogram, "distilrec_stage_seconds", "Time in each stage of a request", "stage", buckets=STAGE_BUCKETS
        )
        self._sizes = self._make(Histogram, "distilrec_batch_size", "Queries answered together", buckets=SIZES)
        self._unknown = self._make(Counter, "distilrec_unknown_items", "Item ids that the catalogue lacks")
        self._fallback = self._make(Counter, "distilrec_fallback", "Answers by popularity", "version")
        self._stored = self._make(Counter, "distilrec_stored", "New events and items that stores keep", "store")
        self._store_failures = self._make(
            Counter, "distilrec_store_failures", "Calls that a store did not answer", "store", "action"
        )
        self._store_seconds = self._make(
            Histogram, "distilrec_store_seconds", "Time of a call of a store", "store", "action", buckets=BUCKETS
        )
        self._in_flight = self._make(Gauge, "distilrec_in_flight", "Requests being answered")
        self._limit = self._make(Gauge, "distilrec_in_flight_limit", "Requests let in at once under lasting load")
        self._info = self._make(Gauge, "distilrec_model_info", "The loaded models", "version", "model", "role")
        self._share = self._make(Gauge, "distilrec_canary_share", "Share of traffic that the candidate answers")
        for alone in (self._unknown, self._share):
            alone.labels(replica)  # shown as 0 before anything happened
        for store, action in STORE_CALLS:
            self._stored.labels(replica, store)
            self._store_failures.labels(replica, store, action)
            self._store_seconds.labels(replica, store, action)

    def _make(self, kind: Callable[..., Any], name: str, about: str, *labels: str, **options: Any) -> Any:
        return kind(name, about, ("replica", *labels), registry=self.registry, **options)

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (id(metric), *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(self._replica, *labels)
        return child

    def end(self, path: str, status: int, record: Record, ended: float) -> None:
        """A request was answered."""
        version = record.version
        self._child(self._requests, path, str(status), version).inc()
        self._child(self._seconds, path, version).observe(ended - record.started)
        for stage, seconds in record.stages(ended).items():
            self._child(self._stages, stage).observe(seconds)
        if record.batch_size:
            self._child(self._sizes).observe(record.batch_size)
        if self._snapshots is not None and self._snapshots.due():
            self.publish()

    def answered(self, answer: Recommendation, version: str) -> None:
        """A model answered one query."""
        if answer.unknown_items:
            self._child(self._unknown).inc(len(answer.unknown_items))
        if answer.fallback:
            self._child(self._fallback, version).inc()

    @contextmanager
    def asking_store(self, store: str, action: str) -> Iterator[None]:
        """Around a call of a store, see `STORE_CALLS`."""
        started = time.perf_counter()
        try:
            yield
        except StorageError:
            self._child(self._store_failures, store, action).inc()
            raise
        finally:
            self._child(self._store_seconds, store, action).observe(time.perf_counter() - started)

    def stored(self, store: str, count: int) -> None:
        """A store has kept `count` new events or items."""
        self._child(self._stored, store).inc(count)

    def publish(self) -> None:
        """Show this replica's metrics to the others."""
        if self._snapshots is not None:
            with self._publishing.kept():  # a full disk costs the numbers, neither an answer nor the replica
                self._snapshots.write(self._own())

    def text(self) -> bytes:
        """All series in the exposition format, those of the other replicas too where they are shown to this one."""
        own = self._own()
        if self._snapshots is not None:
            with self._merging.kept():
                return self._snapshots.merged(own)
        return own

    def _own(self) -> bytes:
        models = self._models()
        self._info.clear()
        roles = [("incumbent", models.incumbent), ("candidate", models.candidate)]
        for role, served in [*roles, *(("other", one) for one in models.others)]:
            if served is not None:
                self._info.labels(self._replica, served.version, served.name, role).set(1)
        self._child(self._share).set(models.share)
        if self._admission is not None:
            self._child(self._in_flight).set(self._admission.in_flight)
            self._child(self._limit).set(self._admission.limit)
        return generate_latest(self.registry)
