from __future__ import annotations

import sys
from pathlib import Path

import pytest

from components.errors import ArtifactError, UserError
from serve.histories.redis_events import RedisEvents, masked
from serve.histories.store import Event, StoreDownError
from tests.serve.histories.servers import StartRedis


def test_events_outlive_the_server(tmp_path: Path, start_redis: StartRedis) -> None:
    server = start_redis(tmp_path)
    store = RedisEvents(server.url)
    for number in range(50):
        store.append([Event("ann", f"id-{number}", 7, f"{number}")])
    server.kill()
    with pytest.raises(StoreDownError, match="does not answer"):
        store.read(["ann"], 99)
    server.start()
    assert store.read(["ann"], 99) == [[f"id-{number}" for number in range(50)]]
    assert store.append([Event("ann", "again", 7, "3"), Event("ann", "new", 7, "new")]) == 1
    store.close()


@pytest.mark.parametrize(("appendonly", "warning"), [("yes", None), ("no", "appendonly is off")])
def test_a_server_that_forgets_is_told(
    tmp_path: Path, start_redis: StartRedis, appendonly: str, warning: str | None
) -> None:
    server = start_redis(tmp_path, appendonly=appendonly)
    store = RedisEvents(server.url)
    found = store.persistence()
    assert (found is None) if warning is None else (found is not None and warning in found)
    store._client.config_set("appendonly", "yes")
    store._client.config_set("appendfsync", "everysec")
    assert "last second" in (store.persistence() or "")
    server.kill()
    assert "cannot be told" in (store.persistence() or "")
    store.close()


def test_another_format_is_refused(tmp_path: Path, start_redis: StartRedis) -> None:
    server = start_redis(tmp_path)
    store = RedisEvents(server.url)
    store.check()
    store.check()
    store._client.set("distilrec:format", 2)
    with pytest.raises(ArtifactError, match=r"'2'.*reads 1; give another database number"):
        store.check()
    store.close()


def test_a_wrong_password_is_named_without_it(tmp_path: Path, start_redis: StartRedis) -> None:
    server = start_redis(tmp_path, password="hush")
    store = RedisEvents(server.url.replace("hush", "wrong-one"))
    with pytest.raises(StoreDownError, match=r"redis://127.0.0.1") as caught:
        store.check()
    assert "wrong-one" not in str(caught.value)
    store.close()


@pytest.mark.parametrize("url", ["redis://:hush@127.0.0.1:x/0", "redis://:hush@127.0.0.1:99999999/0"])
def test_a_wrong_address_is_the_users_error_without_its_password(url: str) -> None:
    pytest.importorskip("redis")
    with pytest.raises(UserError, match="no valid address") as caught:
        RedisEvents(url)
    assert "hush" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(UserError, match=r"pip install 'distilrec\[redis\]'"):
        RedisEvents("redis://127.0.0.1/0")


def test_addresses_are_shown_without_secrets() -> None:
    assert masked("rediss://ann:se@cret@host:1/2?password=x") == "rediss://host:1/2"
    assert masked("redis://host") == "redis://host"
    assert "secret" not in masked("redis://[secret")
