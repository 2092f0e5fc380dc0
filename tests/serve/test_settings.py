from __future__ import annotations

import pytest

from components.errors import ConfigError
from serve.keys import Keys
from serve.settings import Settings, access, hash_key, is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "shop.example"])
@pytest.mark.parametrize("key", [None, ""])
def test_an_open_host_needs_a_key(host: str, key: str | None) -> None:
    with pytest.raises(ConfigError, match="DISTILREC_API_KEY") as caught:
        access(host, key)
    assert caught.value.exit_code == 2


def test_loopback_needs_no_key() -> None:
    settings = access("127.0.0.1", None)
    assert settings.loopback_only
    assert not Keys(settings).needed


def test_the_key_is_stored_as_a_hash() -> None:
    settings = access("0.0.0.0", "sesame")
    assert not settings.loopback_only
    keys = Keys(settings)
    assert keys.needed
    assert [keys.identify(key) for key in ("sesame", "Sesame", "")] == ["environment", None, None]
    assert "sesame" not in repr(settings)
    assert settings == Settings(key_hash=hash_key("sesame"), loopback_only=False)
