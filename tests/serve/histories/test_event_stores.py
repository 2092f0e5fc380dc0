"""What every store of events promises, over both of them, against a plain list."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.histories.redis_events import RedisEvents
from serve.histories.sqlite_events import SqliteEvents
from serve.histories.store import Event, EventStore
from tests.serve.histories.servers import RedisServer

Open = Callable[[], EventStore]  # an empty store


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def open_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("stores")
    if request.param == "sqlite":
        yield lambda: SqliteEvents(folder / uuid.uuid4().hex)
        return
    server = RedisServer(folder)
    server.start()

    def fresh() -> RedisEvents:
        store = RedisEvents(server.url)
        store._client.flushdb()
        return store

    try:
        yield fresh
    finally:
        server.kill()


@pytest.fixture
def store(open_store: Open) -> Iterator[EventStore]:
    store = open_store()
    yield store
    store.close()


class Plain:
    """The reference."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def append(self, events: Sequence[Event]) -> int:
        before = len(self.events)
        for event in events:
            known = {(one.user_id, one.event_id) for one in self.events if one.event_id is not None}
            if (event.user_id, event.event_id) not in known:
                self.events.append(event)
        return len(self.events) - before

    def read(self, user_id: str, limit: int) -> list[str]:
        own = sorted((one for one in self.events if one.user_id == user_id), key=lambda one: one.timestamp)
        return [one.item_id for one in own][-limit:] if limit else []


texts = st.one_of(st.sampled_from(["ann", "bob", "", "a\0b", "a", "ид", "🙂", "-inf", "17"]), st.text(max_size=5))
events = st.builds(
    Event,
    user_id=texts,
    item_id=texts,
    timestamp=st.integers(0, 3) | st.integers(0, 2**52),
    event_id=st.none() | st.sampled_from(["", "1", "2"]),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(appends=st.lists(st.lists(events, max_size=5), max_size=6), limit=st.integers(0, 6))
def test_a_store_reads_like_a_plain_list(open_store: Open, appends: list[list[Event]], limit: int) -> None:
    plain, store = Plain(), open_store()
    for one in appends:
        assert store.append(one) == plain.append(one)
    users = [*{event.user_id for one in appends for event in one}, "nobody", "nobody"]
    assert store.read(users, limit) == [plain.read(user, limit) for user in users]
    store.close()


def test_equal_times_stand_by_arrival(store: EventStore) -> None:
    store.append([Event("ann", f"late-{i}", 9) for i in range(12)])
    store.append([Event("ann", "early", 3)])
    assert store.read(["ann"], 100) == [["early", *(f"late-{i}" for i in range(12))]]
    assert store.read(["ann", "bob"], 2) == [["late-10", "late-11"], []]


def test_the_first_of_two_equal_event_ids_stays(store: EventStore) -> None:
    assert store.append([Event("ann", "a", 1, "x"), Event("ann", "b", 2, "x"), Event("bob", "c", 1, "x")]) == 2
    assert store.append([Event("ann", "d", 1, "x"), Event("ann", "e", 1)]) == 1
    assert store.read(["ann", "bob"], 9) == [["a", "e"], ["c"]]


def test_half_a_surrogate_pair_is_refused_and_nothing_of_its_append_is_kept(store: EventStore) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        store.append([Event("ann", "a", 1), Event("ann", "\ud800", 2)])
    assert store.read(["ann"], 9) == [[]]
    assert store.append([Event("ann", "b", 1)]) == 1


def test_threads_that_append_at_once_lose_nothing(store: EventStore) -> None:
    def work(number: int) -> int:
        return sum(store.append([Event(f"user-{number % 3}", f"{number}.{i}", i)]) for i in range(20))

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(work, range(12))) == [20] * 12
    for user, items in enumerate(store.read(["user-0", "user-1", "user-2"], 1000)):
        assert len(set(items)) == 80
        assert [int(item.split(".")[1]) for item in items] == sorted(i for i in range(20) for _ in range(4))
        assert {int(item.split(".")[0]) % 3 for item in items} == {user}


def test_a_store_that_works_says_so(store: EventStore) -> None:
    store.check()


def test_what_was_kept_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    first = SqliteEvents(tmp_path)
    first.append([Event("ann", "a", 1, "x")])
    first.close()
    second = SqliteEvents(tmp_path)
    assert second.read(["ann"], 9) == [["a"]]
    assert second.append([Event("ann", "b", 1, "x")]) == 0
    second.close()
