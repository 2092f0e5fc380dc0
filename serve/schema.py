"""What the endpoint takes and gives, as pydantic models; unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from serve.query import MAX_EXPLAINED, MAX_EXPLAINED_REQUESTS, FilterRequest
from serve.settings import MAX_BATCH, MAX_BATCH_ITEMS, MAX_HISTORY, MAX_K

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class RecommendRequest(BaseModel):
    """One question. Give `history` or `user_id`, not both."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,  # ids that look like numbers may be sent as numbers
        json_schema_extra={"examples": [{"history": ["item-1", "item-2"], "k": 10}]},
    )

    history: list[Identifier] | None = Field(
        default=None, max_length=MAX_HISTORY, description="item ids, oldest first; may be empty"
    )
    user_id: Identifier | None = Field(
        default=None, description="a user of the run, or of events; an unknown one gets the popular items"
    )
    k: StrictInt = Field(default=10, ge=1, le=MAX_K, description="how many items to return")
    exclude_seen: StrictBool = Field(default=True, description="leave out the items of the history")
    model: Identifier | None = Field(
        default=None, description="a loaded version by name, for comparisons; `GET /v1/model` lists them"
    )
    filter: FilterRequest | None = Field(default=None, description="which items may be recommended")
    explain: StrictBool = Field(
        default=False, description=f"say which items of the history moved each score; k is at most {MAX_EXPLAINED}"
    )

    @field_validator("explain")
    @classmethod
    def _bounded(cls, explain: bool, given: ValidationInfo) -> bool:
        if explain and given.data.get("k", 0) > MAX_EXPLAINED:
            raise ValueError(f"explains at most {MAX_EXPLAINED} items; ask for a smaller k")
        return explain

    @model_validator(mode="after")
    def _one_source(self) -> RecommendRequest:
        if (self.history is None) == (self.user_id is None):
            raise ValueError("give either `history` or `user_id`")
        return self


class BatchRequest(BaseModel):
    """Several questions in one call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: list[RecommendRequest] = Field(min_length=1, max_length=MAX_BATCH)

    @model_validator(mode="after")
    def _bounded(self) -> BatchRequest:
        asked = sum(request.k for request in self.requests)
        if asked > MAX_BATCH_ITEMS:
            raise ValueError(f"asks for {asked} items in all; at most {MAX_BATCH_ITEMS} per call")
        if sum(request.explain for request in self.requests) > MAX_EXPLAINED_REQUESTS:
            raise ValueError(f"explains more than {MAX_EXPLAINED_REQUESTS} requests; send the others in another call")
        return self


class Item(BaseModel):
    """One item of the catalogue."""

    item_id: str
    title: str | None = None


class CatalogItem(Item):
    """One item of the catalogue with its attributes: name -> values."""

    attributes: dict[str, list[str]]


class Cause(Item):
    """An item of the history; without it the recommended item's score would be lower by `change`."""

    change: float


class RankedItem(Item):
    """One recommended item; `because` is there where `explain` was asked for, strongest first."""

    score: float
    because: list[Cause] | None = None


class RecommendResponse(BaseModel):
    """The answer: best item first.

    Attributes:
        items: fewer than `k` where the catalogue has no more.
        model: name and version of the model that answered.
        unknown_items: ids of the history that the catalogue does not hold; they were ignored.
        fallback: ``"popularity"`` where no known item was given, so the most frequent items were returned.
    """

    items: list[RankedItem]
    model: str
    unknown_items: list[str]
    fallback: str | None = None


class BatchResponse(BaseModel):
    """The answers in the order of the questions."""

    results: list[RecommendResponse]


class ItemsResponse(BaseModel):
    """Items that a search found, the most frequent ones first."""

    items: list[CatalogItem]


class ModelVersion(BaseModel):
    """A loaded model."""

    version: str
    name: str


class NewItemsInformation(BaseModel):
    """Whether and how items can be added.

    Attributes:
        text: columns that can be sent as `text`; empty where texts cannot be read.
        vectors: width of the vector by teacher; empty where no items can be added.
        why_not: why something cannot be sent; null where texts and vectors can.
        added: items that were added while serving and that this model ranks.
        missing: items that were added for other teachers or another model, which this one cannot rank.
    """

    text: list[str]
    vectors: dict[str, int]
    why_not: str | None
    added: int
    missing: int


class ModelResponse(BaseModel):
    """The model that serves, and what else is loaded.

    Attributes:
        attributes: by which answers can be filtered.
        retrieval: ``method`` is ``"exact"`` or ``"faiss"``, the latter with its measured ``recall``.
    """

    name: str
    version: str
    versions: list[ModelVersion]
    kind: str
    family: str
    num_items: int
    parameters: dict[str, int]
    metrics: dict[str, Any]
    user_histories: bool
    pictures: bool = Field(description="whether items have pictures at `/v1/items/ITEM_ID/picture`")
    teachers: list[str] = Field(description="whose opinions `/v1/opinions` knows")
    new_items: NewItemsInformation
    attributes: list[str]
    retrieval: dict[str, Any]
    manifest: dict[str, Any]


class ErrorResponse(BaseModel):
    """Every error of the endpoint has this body.

    Attributes:
        code: a stable word for programs, such as ``"invalid"``.
        message: one sentence for people.
        field: the part of the request that is wrong, such as ``"history.3"``; null where it is none.
    """

    code: str
    message: str
    field: str | None = None
