"""The models that a replica has loaded, and which of them answers whom."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final

from components.recommender import Recommender
from serve.errors import ApiError
from serve.pace import Pace

BUCKETS: Final = 10_000  # the finest share of traffic is a hundredth of a percent


@dataclass(frozen=True)
class Growth:
    """How far a loaded model took up the items that were added while serving; see `serve.growing`.

    Attributes:
        seen: number of the last item of the store that it looked at.
        added: items of the store that it ranks beside those of its artifact.
        missing: ids of those that it cannot rank.
    """

    seen: int = 0
    added: int = 0
    missing: frozenset[str] = frozenset()


@dataclass(eq=False)
class Served:
    """A loaded model. It stays the same object while it serves; only the items that it ranks become more.

    Attributes:
        version: of its release, such as ``"v0003"``; the hash of its tensors where it is no release.
        recommender: what answers. It never changes; where items are added, a grown one takes its place as a whole.
        growth: items that were added while serving.
        pace: what its rankings were seen to cost.
    """

    version: str
    recommender: Recommender
    growth: Growth = Growth()
    pace: Pace = field(default_factory=Pace)

    @property
    def name(self) -> str:
        """What answers and metrics call it."""
        return self.recommender.name


@dataclass(frozen=True)
class Models:
    """Who answers, at one moment. It is replaced as a whole: a request that began goes on with the models it saw.

    Attributes:
        incumbent: answers everybody, but for `share`; None while it loads.
        candidate: the model under trial, if any.
        share: of the traffic that the candidate answers, 0 to 1; sticky, see `pick`.
        others: further loaded versions, for comparisons by name.
    """

    incumbent: Served | None = None
    candidate: Served | None = None
    share: float = 0.0
    others: tuple[Served, ...] = ()

    def pick(self, key: str) -> Served:
        """The model for a user or a history; the same `key` always meets the same one while `share` stays or grows.

        Raises:
            ApiError: 503, nothing is loaded yet.
        """
        incumbent = self.pick_incumbent()
        place = bucket(key) if key else BUCKETS - 1  # who shows nothing of himself meets a candidate last
        if self.candidate is not None and place < self.share * BUCKETS:
            return self.candidate
        return incumbent

    def pick_incumbent(self) -> Served:
        """The model that answers where the candidate failed.

        Raises:
            ApiError: 503, nothing is loaded yet.
        """
        if self.incumbent is None:
            raise ApiError(503, "the model is loading; try again in a moment", headers={"Retry-After": "1"})
        return self.incumbent

    def named(self, version: str) -> Served:
        """The loaded model of a version or a name.

        Raises:
            ApiError: 422, there is none.
        """
        loaded = self.loaded
        for served in loaded:
            if version in (served.version, served.name):
                return served
        known = ", ".join(served.version for served in loaded)
        raise ApiError(422, f"no model {version!r} is loaded; there are: {known}", "model")

    @property
    def loaded(self) -> list[Served]:
        """All loaded models, the incumbent first."""
        return [served for served in (self.incumbent, self.candidate, *self.others) if served is not None]


def bucket(key: str) -> int:
    """Where a key stands among `BUCKETS`: spread evenly, the same in every replica."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) * BUCKETS >> 32
