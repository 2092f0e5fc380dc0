"""Events in a Redis server that several machines may share; one database of it for one catalog.

Per user a sorted set holds the events, scored by timestamp; a member begins with the number of its arrival, which
orders equal timestamps. How durable an append is, the server's configuration says: see `RedisEvents.persistence`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast
from urllib.parse import urlsplit

from components.errors import ArtifactError, UserError
from serve.histories.store import FORMAT, Event, StoreDownError

SCHEMES: Final = ("redis", "rediss")
PREFIX: Final = "distilrec:"
TIMEOUT_S: Final = 2.0
_DIGITS: Final = 16  # of an arrival number in front of a member
_APPEND: Final = f"""
local new = 0
for place = 0, (#KEYS - 3) / 2 do
  local id = ARGV[3 * place + 2]
  if id == '' or redis.call('SADD', KEYS[2 * place + 3], id) == 1 then
    local arrival = string.format('%0{_DIGITS}d', redis.call('INCR', KEYS[1]))
    redis.call('ZADD', KEYS[2 * place + 2], ARGV[3 * place + 1], arrival .. ARGV[3 * place + 3])
    new = new + 1
  end
end
return new
"""


class RedisEvents:
    """The events of one database of a server. Nothing is asked of the server before the first call.

    Args:
        url: ``redis://HOST:PORT/NUMBER`` or ``rediss://…`` (TLS), possibly with ``USER:PASSWORD@``.

    Raises:
        UserError: the URL cannot be understood, or the package is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise UserError("events in Redis need its package: pip install 'distilrec[redis]'") from error
        self.name = masked(url)
        try:
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),  # an append whose answer was lost must not be sent twice
            )
        except ValueError as error:
            raise UserError(f"{self.name}: no valid address of a Redis ({error}); give redis://HOST:PORT/0") from error
        self._append = self._client.register_script(_APPEND)
        self._down: tuple[type[Exception], ...] = (redis.RedisError, OSError)

    def read(self, user_ids: Sequence[str], limit: int) -> list[list[str]]:
        """See `EventStore.read`."""
        if limit < 1:
            return [[] for _ in user_ids]
        with self._talking(), self._client.pipeline(transaction=False) as pipeline:
            for user_id in user_ids:
                pipeline.zrange(_events_key(user_id), -limit, -1)
            found = cast(list[list[bytes]], pipeline.execute())
        return [[json.loads(member[_DIGITS:])[0] for member in members] for members in found]

    def append(self, events: Sequence[Event]) -> int:
        """See `EventStore.append`; one script, so that the server keeps all or none."""
        keys = [f"{PREFIX}arrivals"]
        arguments: list[str | int] = []
        for event in events:
            keys += [_events_key(event.user_id), f"{PREFIX}event_ids:{event.user_id}"]
            content = json.dumps([event.item_id, event.value], ensure_ascii=False)
            arguments += [event.timestamp, "" if event.event_id is None else f"={event.event_id}", content]
        if not events:
            return 0
        with self._talking():
            return int(cast(int, self._append(keys, arguments)))

    def check(self) -> None:
        """See `EventStore.check`.

        Raises:
            ArtifactError: the database holds events of another format version.
        """
        key = f"{PREFIX}format"
        with self._talking():
            self._client.set(key, FORMAT, nx=True)
            found = cast(bytes, self._client.get(key))
        if found != str(FORMAT).encode():
            raise ArtifactError(
                f"{self.name}: format version {found.decode(errors='replace')!r} of another version, this one reads "
                f"{FORMAT}; give another database number"
            )

    def persistence(self) -> str | None:
        """What an acknowledged event may not survive by the server's configuration; None where it survives all."""
        try:
            with self._talking():
                found = cast(dict[str, Any], self._client.config_get("appendonly", "appendfsync"))
        except StoreDownError as error:
            return f"{error}: whether it keeps events over a restart cannot be told"
        if found.get("appendonly") != "yes":
            return f"{self.name}: appendonly is off, so that events may be lost when the server stops; turn it on"
        if found.get("appendfsync") != "always":
            return f"{self.name}: appendfsync is not `always`: the last second's events may be lost in a power cut"
        return None

    def close(self) -> None:
        """See `EventStore.close`."""
        self._client.close()

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except self._down as error:
            raise StoreDownError(f"{self.name}: the event store does not answer ({error})") from error


def masked(url: str) -> str:
    """An address without user, password and options, for logs and errors.

    >>> masked("redis://ann:secret@127.0.0.1:6379/0?password=x")
    'redis://127.0.0.1:6379/0'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address of --histories"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _events_key(user_id: str) -> str:
    return f"{PREFIX}events:{user_id}"
