"""What the endpoint counts, in Prometheus text. One replica counts its own requests; the label tells them apart."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Telemetry:
    """Counters of one replica.

    Args:
        replica: what tells this replica's series from another's.
        model: name of the model that serves.
    """

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, replica: str = "local", model: str = "") -> None:
        self.registry = CollectorRegistry()
        labels = ("replica", "path", "status")
        self._requests = Counter("distilrec_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "distilrec_request_seconds", "Time to answer", labels[:2], registry=self.registry, buckets=BUCKETS
        )
        self._in_flight = Gauge("distilrec_in_flight", "Requests being answered", labels[:1], registry=self.registry)
        self._unknown = Counter(
            "distilrec_unknown_items", "Item ids that the catalogue lacks", labels[:1], registry=self.registry
        )
        info = Gauge("distilrec_model_info", "The model that serves", ("replica", "model"), registry=self.registry)
        info.labels(replica, model).set(1)
        self._replica = replica
        self.in_flight = 0

    def begin(self) -> None:
        """A request arrived."""
        self.in_flight += 1
        self._in_flight.labels(self._replica).set(self.in_flight)

    def end(self, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.in_flight -= 1
        self._in_flight.labels(self._replica).set(self.in_flight)
        self._requests.labels(self._replica, path, str(status)).inc()
        self._seconds.labels(self._replica, path).observe(seconds)

    def unknown(self, count: int) -> None:
        """A request named `count` items that the catalogue lacks."""
        if count:
            self._unknown.labels(self._replica).inc(count)

    def text(self) -> bytes:
        """All series in the exposition format."""
        return generate_latest(self.registry)
