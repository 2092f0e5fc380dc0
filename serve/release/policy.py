"""What a candidate must hold to go on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Policy(BaseModel):
    """The steps of a release and the bounds at each of them.

    Attributes:
        shares: of the traffic at each step of the canary, rising; the shadow is before them, everybody after.
        step_seconds: the least that a step takes.
        min_comparisons: recorded requests on which both models were ranked before a step ends. Live requests are judged
            as they come; their number is not waited for, so that quiet nights do not block a release.
        max_wait_seconds: a step without enough comparisons by then sends the candidate back.
        watch_seconds: how long the candidate is watched while it answers everybody.
        max_error_rate: of the candidate's answers; more than that, and more than twice the incumbent's, is a failure.
        max_latency_ratio: 95th percentile of ranking, candidate to incumbent, measured in turns on the same requests;
            more than that, beyond chance, is a failure.
        deadline_seconds: a ranking of the candidate that takes longer counts as an error; live, the incumbent answers.
        min_overlap: mean share of the incumbent's top items that the candidate's top has, too.
        min_quality_ratio: NDCG of the last item of recorded histories, candidate to incumbent; the release fails where
            the candidate is significantly (5 %, one-sided) below it.
        min_known_ratio: items of the requests that the candidate knows, to those that the incumbent knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: tuple[float, ...] = (0.05, 0.5)
    step_seconds: float = Field(default=20.0, ge=0)
    min_comparisons: int = Field(default=100, ge=1)
    max_wait_seconds: float = Field(default=300.0, gt=0)
    watch_seconds: float = Field(default=20.0, ge=0)
    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    max_latency_ratio: float = Field(default=2.0, gt=0)
    deadline_seconds: float = Field(default=1.0, gt=0)
    min_overlap: float = Field(default=0.05, ge=0, le=1)
    min_quality_ratio: float = Field(default=0.9, ge=0)
    min_known_ratio: float = Field(default=0.9, ge=0)

    @field_validator("shares")
    @classmethod
    def _rising(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in zip((0.0, *shares), (*shares, 1.0), strict=True)):
            raise ValueError("expected shares that rise, above 0 and below 1, such as [0.05, 0.5]")
        return shares
