"""What a request may ask beside a history: filters, and why an item was recommended."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from components.catalog_filters import Filter, ItemAttributes
from components.errors import UserError
from serve.errors import ApiError

MAX_EXPLAINED: Final = 50  # items of one answer that are explained
MAX_EXPLAINED_REQUESTS: Final = 16  # of one call of /v1/recommend:batch: each costs an encoding of up to 51 histories
MAX_ATTRIBUTES: Final = 20
MAX_VALUES: Final = 1000
MAX_FILTER_ITEMS: Final = 10_000

Text = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Values = Annotated[dict[Text, Annotated[list[Text], Field(max_length=MAX_VALUES)]], Field(max_length=MAX_ATTRIBUTES)]
Ids = Annotated[list[Text], Field(max_length=MAX_FILTER_ITEMS)]


class FilterRequest(BaseModel):
    """Which items may be recommended. Values are compared exactly; one that no item has matches none."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        coerce_numbers_to_str=True,
        json_schema_extra={"examples": [{"allow": {"brand": ["3M"]}, "deny_items": ["item-3"]}]},
    )

    allow: Values = Field(default={}, description="attribute: an item needs one of these values, for every attribute")
    deny: Values = Field(default={}, description="attribute: an item has none of these values")
    allow_items: Ids | None = Field(default=None, description="only these item ids; an empty list lets none pass")
    deny_items: Ids = Field(default=[], description="none of these item ids")

    def to_filter(self, attributes: ItemAttributes, field: str = "") -> Filter:
        """The filter for a catalogue with these attributes; `field` leads to the request in error answers.

        Raises:
            ApiError: 422, an attribute is unknown; the message lists those that there are.
        """
        for side, wanted in (("allow", self.allow), ("deny", self.deny)):
            for name in wanted:
                try:
                    attributes.check(name)
                except UserError as error:
                    raise ApiError(422, str(error), f"{field}filter.{side}.{name}") from error
        return Filter.of(self.allow, self.deny, self.allow_items, self.deny_items)
