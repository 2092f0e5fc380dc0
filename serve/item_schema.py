"""What ``POST /v1/items`` takes and gives."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from components.data.item_text import MAX_FIELD
from serve.schema import Identifier

MAX_ITEMS: Final = 100  # of one call
MAX_TITLE: Final = 500
MAX_TEXT: Final = MAX_FIELD - 2  # longer ones would be left out of an item's text, as pasted pages
MAX_COLUMNS: Final = 64
MAX_TEACHERS: Final = 64
MAX_DIM: Final = 8192

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Vector = Annotated[list[Number], Field(min_length=1, max_length=MAX_DIM)]


class NewItem(BaseModel):
    """One item. Give `text`, or `vectors` where the endpoint has no encoders or you have made the vectors already."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    item_id: Identifier
    title: Annotated[str, StringConstraints(max_length=MAX_TITLE)] | None = Field(
        default=None, description="what people are shown; by default the text `title`, else the beginning of the text"
    )
    text: dict[Identifier, Text] = Field(
        default_factory=dict, max_length=MAX_COLUMNS, description="by text column; `GET /v1/model` lists the columns"
    )
    vectors: dict[Identifier, Vector] | None = Field(
        default=None,
        max_length=MAX_TEACHERS,
        description="the item's vector of norm 1 by teacher; `GET /v1/model` lists teachers and widths",
    )

    @model_validator(mode="after")
    def _described(self) -> NewItem:
        if not self.text and self.vectors is None:
            raise ValueError("give `text` or `vectors`")
        return self


class NewItemsRequest(BaseModel):
    """Items to add."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"items": [{"item_id": "new-1", "text": {"title": "A tent for two"}}]}]},
    )

    items: list[NewItem] = Field(min_length=1, max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _distinct(self) -> NewItemsRequest:
        ids = [item.item_id for item in self.items]
        if len(set(ids)) < len(ids):
            twice = next(item_id for place, item_id in enumerate(ids) if item_id in ids[:place])
            raise ValueError(f"the item {twice!r} is given more than once")
        return self


class NewItemsResponse(BaseModel):
    """What became of the items.

    Attributes:
        added: ids that were added: they are kept, and this model ranks them from now on.
        known: ids that were ranked already; they stay as they are.
        refused: id -> why it was not added.
        model: name of the model.
        num_items: items that it ranks now.
    """

    added: list[str]
    known: list[str]
    refused: dict[str, str]
    model: str
    num_items: int
