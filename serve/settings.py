"""Limits and access of the endpoint."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from functools import lru_cache
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from components.errors import ConfigError

KEY_VARIABLE: Final = "DISTILREC_API_KEY"
MAX_K: Final = 1000
MAX_HISTORY: Final = 2000
MAX_BATCH: Final = 256  # requests of one call of /v1/recommend:batch
MAX_BATCH_ITEMS: Final = 20_000  # items that one call of /v1/recommend:batch may ask for in all


class Settings(BaseModel):
    """What the application allows.

    Attributes:
        key_hash: sha256 of the API key, None where no key is asked for; the key itself stays in the command.
        loopback_only: refuse peers on other machines, whichever port they found.
        max_body_bytes: larger bodies are answered with 413.
        max_in_flight: requests that one replica works on at the same time; more are answered with 429.
        retry_after_s: what a shed client is told to wait.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_hash: str | None = None
    loopback_only: bool = True
    max_body_bytes: int = Field(default=1_000_000, ge=1)
    max_in_flight: int = Field(default=512, ge=1)
    retry_after_s: int = Field(default=1, ge=1)

    def accepts(self, key: str) -> bool:
        """Whether `key` is the API key; takes the same time for every wrong one."""
        return self.key_hash is None or hmac.compare_digest(hash_key(key), self.key_hash)


def hash_key(key: str) -> str:
    """What is stored of an API key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=64)  # asked twice per request
def is_loopback(host: str) -> bool:
    """Whether `host` is this machine alone; a name other than ``localhost`` counts as another machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def access(host: str, key: str | None) -> Settings:
    """The settings for listening on `host`.

    Raises:
        ConfigError: other machines could reach the endpoint and there is no key.
    """
    if not is_loopback(host) and not key:
        raise ConfigError(
            f"host {host!r} is reachable from other machines, so an API key is required: set {KEY_VARIABLE} to a long "
            "random text (clients send it as `Authorization: Bearer KEY`), or use --host 127.0.0.1"
        )
    return Settings(key_hash=hash_key(key) if key else None, loopback_only=is_loopback(host))
