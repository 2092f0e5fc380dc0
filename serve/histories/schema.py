"""What ``POST /v1/events`` takes and gives."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from serve.histories.store import Event
from serve.schema import Identifier

MAX_EVENTS: Final = 1000
AHEAD_S: Final = 86_400  # how far another machine's clock may be ahead
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _plausible(when: datetime) -> datetime:
    """A time of the far future would stay the user's latest one for good."""
    zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
    if not 0 <= zoned.timestamp() <= time.time() + AHEAD_S:
        raise ValueError("must lie between 1970 and tomorrow")
    return zoned


Timestamp = Annotated[
    datetime,
    AfterValidator(_plausible),
    Field(
        description="seconds since 1970 (a number above 2e10 counts milliseconds), or an ISO 8601 text; without a zone "
        "it is UTC. Now, where it is absent",
        json_schema_extra={"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]},
    ),
]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    timestamp: Timestamp | None = None
    event_id: Identifier | None = Field(
        default=None, description="a name of your own: the same user's event of the same name is kept once"
    )
    value: FiniteFloat | None = Field(default=None, description="such as a rating; kept beside the event")


class EventIn(_Fields):
    """One interaction."""

    user_id: Identifier
    item_id: Identifier

    def event(self, now: int) -> Event:
        """The event to keep; `now` in microseconds."""
        when = now if self.timestamp is None else (self.timestamp - _EPOCH) // timedelta(microseconds=1)
        return Event(self.user_id, self.item_id, when, self.event_id, self.value)


class EventsRequest(_Fields):
    """One interaction, or several under `events`; several are kept all or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "user-1", "item_id": "item-1", "event_id": "click-17"}]}
    )

    user_id: Identifier | None = None
    item_id: Identifier | None = None
    events: list[EventIn] | None = Field(default=None, min_length=1, max_length=MAX_EVENTS)

    @model_validator(mode="after")
    def _one_form(self) -> EventsRequest:
        single = self.model_fields_set - {"events"}
        if bool(single) == (self.events is not None):
            raise ValueError("give one event's `user_id` and `item_id`, or `events`")
        if single and (self.user_id is None or self.item_id is None):
            raise ValueError("an event needs `user_id` and `item_id`")
        return self

    def to_events(self) -> list[Event]:
        """The events in the order of the request; those without a time are of now."""
        now = time.time_ns() // 1000
        events = self.events or [EventIn.model_validate(self.model_dump(exclude={"events"}))]
        return [one.event(now) for one in events]


class EventsResponse(BaseModel):
    """What became of the events; they are durable when it arrives.

    Attributes:
        stored: events that are new.
        duplicates: events whose `event_id` their user had already; the first one stayed.
        unknown_items: ids that the catalogue does not hold. Their events are kept, and count once it does.
    """

    stored: int
    duplicates: int
    unknown_items: list[str]
