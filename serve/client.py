"""A client for programs: needs httpx and pydantic, and neither Ray nor PyTorch.

with Client("http://127.0.0.1:8000", key="…") as client:
    for item in client.recommend(["id-1", "id-2"], k=5).items:
        print(item.item_id, item.score)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict

BROKEN: Final = (httpx.NetworkError, httpx.RemoteProtocolError)  # the request may or may not have arrived
MAX_WAIT_S: Final = 10.0  # a server that asks for a longer wait gets no second request
UNREACHABLE: Final = "unreachable"  # the code of an error without an answer


class _Answer(BaseModel):
    """What a newer endpoint says beyond this is kept as further attributes."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Item(_Answer):
    """One item of the catalog."""

    item_id: str
    title: str | None = None


class RankedItem(Item):
    """One recommended item."""

    score: float


class Recommended(_Answer):
    """An answer, best item first; `fallback` is ``"popularity"`` where no item of the history is known."""

    items: list[RankedItem]
    model: str
    unknown_items: list[str] = []
    fallback: str | None = None


class Stored(_Answer):
    """What became of events: new ones, and those that the endpoint had already by their `event_id`."""

    stored: int
    duplicates: int = 0
    unknown_items: list[str] = []


class Added(_Answer):
    """What became of new items: ids that are ranked now, those that were already, and why others were refused."""

    added: list[str]
    known: list[str] = []
    refused: dict[str, str] = {}


class _Results(_Answer):
    results: list[Recommended]


class _Items(_Answer):
    items: list[Item]


class EndpointError(Exception):
    """The endpoint refused, or did not answer.

    Attributes:
        status: of HTTP; 0 where there was no answer.
        code: a stable word such as ``"invalid"``; ``"unreachable"`` where there was no answer.
        message: one sentence for people.
        field: the part of the request that is wrong, or None.
        request_id: finds the request in the endpoint's log, where it sent one.
    """

    def __init__(self, status: int, code: str, message: str, field: str | None = None, request_id: str | None = None):
        super().__init__(f"{status or 'no answer'} {code}: {message}" + (f" (field {field})" if field else ""))
        self.status, self.code, self.message, self.field, self.request_id = status, code, message, field, request_id


A = TypeVar("A", bound=_Answer)


class Client:
    """Talks to one endpoint over connections that it keeps, from any thread. Use it in ``with``, or `close` it.

    A request is sent once more where the endpoint is overloaded (429), and where it may safely be repeated (all but
    events without an `event_id`) after a 503 with ``Retry-After`` and a broken connection, too.

    Args:
        url: such as ``"http://127.0.0.1:8000"``.
        key: the API key, where the endpoint asks for one.
        timeout: seconds for each step: to connect, to send, until an answer comes.
        transport: another way to send requests, for tests.

    Every method raises EndpointError.
    """

    def __init__(
        self, url: str, key: str | None = None, timeout: float = 10.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(
        self, history: Sequence[str] | None = None, *, user_id: str | None = None, k: int = 10, **options: Any
    ) -> Recommended:
        """The best `k` items after a history of item ids, oldest first, or for a user whom the endpoint knows.

        `options` are further keys of the request, such as ``exclude_seen=False``; see the endpoint's ``/docs``.
        """
        given = {"history": None if history is None else list(history), "user_id": user_id, "k": k, **options}
        return self._post(Recommended, "/v1/recommend", {name: v for name, v in given.items() if v is not None})

    def recommend_batch(self, requests: Sequence[Mapping[str, Any]]) -> list[Recommended]:
        """Several questions in one call, each with the keys of `recommend`; the answers in their order."""
        return self._post(_Results, "/v1/recommend:batch", {"requests": [dict(one) for one in requests]}).results

    def items(self, query: str = "", limit: int = 20) -> list[Item]:
        """Items whose id or title holds `query`, the most frequent ones first."""
        answer = self._send("GET", "/v1/items", params={"query": query, "limit": limit})
        return _Items.model_validate(answer.json()).items

    def model(self) -> dict[str, Any]:
        """The model that serves: what it is, how it was made, how it measured."""
        answer: dict[str, Any] = self._send("GET", "/v1/model").json()
        return answer

    def event(
        self, user_id: str, item_id: str, timestamp: float | str | None = None, event_id: str | None = None
    ) -> Stored:
        """Add an interaction to a user's history; with an `event_id` it counts once however often it is sent."""
        given = {"user_id": user_id, "item_id": item_id, "timestamp": timestamp, "event_id": event_id}
        return self.events([{name: value for name, value in given.items() if value is not None}])

    def events(self, events: Sequence[Mapping[str, Any]]) -> Stored:
        """Add several interactions, each with the keys of `event`."""
        safe = all(event.get("event_id") is not None for event in events)
        return self._post(Stored, "/v1/events", {"events": [dict(event) for event in events]}, repeatable=safe)

    def add_items(self, items: Sequence[Mapping[str, Any]]) -> Added:
        """Let the endpoint rank new items, each with `item_id` and either `text` by column or `vectors` by teacher."""
        return self._post(Added, "/v1/items", {"items": [dict(item) for item in items]})

    def ready(self) -> bool:
        """Whether the endpoint answers and has its model loaded."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _post(self, kind: type[A], path: str, body: dict[str, Any], *, repeatable: bool = True) -> A:
        return kind.model_validate(self._send("POST", path, repeatable, json=body).json())

    def _send(self, method: str, path: str, repeatable: bool = True, **content: Any) -> httpx.Response:
        for last in (False, True):
            try:
                answer = self._http.request(method, path, **content)
            except httpx.TransportError as error:
                if repeatable and not last and isinstance(error, BROKEN):
                    continue
                reason = f"{self._http.base_url}: {error or type(error).__name__}"
                raise EndpointError(0, UNREACHABLE, reason) from error
            wait = _wait(answer, repeatable)
            if answer.is_success:
                return answer
            if last or wait is None:
                break
            time.sleep(wait)
        raise _error(answer)


def _wait(answer: httpx.Response, repeatable: bool) -> float | None:
    """Seconds after which the request may be sent again; None where it should not be."""
    after = answer.headers.get("Retry-After", "")
    again = answer.status_code == 429 or (answer.status_code == 503 and repeatable)
    return float(after) if again and after.isdecimal() and int(after) <= MAX_WAIT_S else None


def _error(answer: httpx.Response) -> EndpointError:
    """The error of an answer; its body may be another program's, such as a proxy's."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    found = body if isinstance(body, dict) else {}
    message = found.get("message") or answer.text[:200] or answer.reason_phrase
    request_id = answer.headers.get("X-Request-Id")
    return EndpointError(answer.status_code, found.get("code") or "error", message, found.get("field"), request_id)
