"""What the endpoint of a streaming model takes and gives."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from serve.schema import Identifier
from serve.settings import MAX_K


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class StreamRecommendRequest(_Request):
    """One question: what a user would rate best."""

    user_id: Identifier
    k: StrictInt = Field(default=10, ge=1, le=MAX_K, description="how many items to return")
    exclude_seen: StrictBool = Field(default=True, description="leave out what the user rated at this endpoint")


class PredictRequest(_Request):
    """One question: how a user would rate an item."""

    user_id: Identifier
    item_id: Identifier


class StreamItem(BaseModel):
    """One recommended item."""

    item_id: str
    title: str | None = None
    score: float


class StreamRecommendResponse(BaseModel):
    """Best item first; `fallback` is ``"popularity"`` for a user whom the model has not met."""

    items: list[StreamItem]
    model: str
    learned_events: int
    fallback: str | None = None


class PredictResponse(BaseModel):
    """Probability of a rating above the threshold, or the expected grade 0 to 4; null where user or item is new."""

    score: float | None
    model: str
    learned_events: int


class StreamModelResponse(BaseModel):
    """The model that serves, and how it did on what it learned here: each event was predicted before it was learned."""

    version: str
    method: str
    task: str
    users: int
    items: int
    learned_events: int
    predicted_first: dict[str, Any]
