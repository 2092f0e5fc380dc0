"""What is measured of two models: counts that add up over replicas."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

EDGES: Final = np.geomspace(1e-4, 60.0, 100)  # seconds; neighbors differ by 14 %


class Tally(BaseModel):
    """Answers of one model.

    Attributes:
        requests: answered, failed ones included.
        errors: failed, empty, or later than the deadline.
        counts: answers by time, between `EDGES`; requests that could not be asked are not among them.
        last_error: the latest failure in words.
    """

    model_config = ConfigDict(extra="forbid")

    requests: int = 0
    errors: int = 0
    counts: list[int] = Field(default_factory=lambda: [0] * (len(EDGES) + 1))
    last_error: str = ""

    def add(self, seconds: float, error: str = "") -> None:
        """Count one answer."""
        self.requests += 1
        self.counts[int(np.searchsorted(EDGES, seconds))] += 1
        if error:
            self.errors += 1
            self.last_error = error

    def fail(self, error: str) -> None:
        """Count a request that was not even asked; it took no time."""
        self.requests += 1
        self.errors += 1
        self.last_error = error

    @property
    def error_rate(self) -> float:
        """Errors by requests; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0

    def quantile(self, share: float) -> float:
        """Seconds below which `share` of the answers came; NaN without any.

        >>> tally = Tally()
        >>> for milliseconds in range(1, 101): tally.add(milliseconds / 1000)
        >>> 0.045 < tally.quantile(0.5) < 0.06
        True
        """
        total = sum(self.counts)
        if not total:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return float(EDGES[min(place, len(EDGES) - 1)])

    def __add__(self, other: Tally) -> Tally:
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Tally(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            counts=counts,
            last_error=other.last_error or self.last_error,
        )


class Figures(BaseModel):
    """What one step of a release measured.

    Attributes:
        live: answers of the candidate to people.
        live_incumbent: answers of the incumbent to people.
        candidate: rankings of recorded requests by the candidate.
        incumbent: the same by the incumbent, in turns with it.
        comparisons: recorded requests that both ranked.
        overlap: summed share of the incumbent's top that the candidate has.
        cases: recorded histories whose last item was held out.
        quality: summed NDCG of the incumbent and of the candidate on them.
        excess: sum and sum of squares of (candidate - ratio x incumbent), for the test.
        known: items of the requests that the incumbent and the candidate know.
    """

    model_config = ConfigDict(extra="forbid")

    live: Tally = Field(default_factory=Tally)
    live_incumbent: Tally = Field(default_factory=Tally)
    candidate: Tally = Field(default_factory=Tally)
    incumbent: Tally = Field(default_factory=Tally)
    comparisons: int = 0
    overlap: float = 0.0
    cases: int = 0
    quality: tuple[float, float] = (0.0, 0.0)
    excess: tuple[float, float] = (0.0, 0.0)
    known: tuple[int, int] = (0, 0)

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            live=self.live + other.live,
            live_incumbent=self.live_incumbent + other.live_incumbent,
            candidate=self.candidate + other.candidate,
            incumbent=self.incumbent + other.incumbent,
            comparisons=self.comparisons + other.comparisons,
            overlap=self.overlap + other.overlap,
            cases=self.cases + other.cases,
            quality=(self.quality[0] + other.quality[0], self.quality[1] + other.quality[1]),
            excess=(self.excess[0] + other.excess[0], self.excess[1] + other.excess[1]),
            known=(self.known[0] + other.known[0], self.known[1] + other.known[1]),
        )

    def shown(self) -> dict[str, float | int | None]:
        """The figures that people read; milliseconds, None where nothing was measured."""
        return {
            "live_requests": self.live.requests,
            "live_errors": self.live.errors,
            "comparisons": self.comparisons,
            "errors": self.candidate.errors,
            "p95_ms": _milliseconds(self.candidate.quantile(0.95)),
            "p95_ms_incumbent": _milliseconds(self.incumbent.quantile(0.95)),
            "overlap": self.overlap / self.comparisons if self.comparisons else None,
            "ndcg": self.quality[1] / self.cases if self.cases else None,
            "ndcg_incumbent": self.quality[0] / self.cases if self.cases else None,
        }


def total(parts: Iterable[Figures]) -> Figures:
    """The sum over replicas."""
    return sum(parts, Figures())


def _milliseconds(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1000, 3)
