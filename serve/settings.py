"""Limits and access of the endpoint."""

from __future__ import annotations

import hashlib
import ipaddress
from functools import lru_cache
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.errors import ConfigError
from components.recommender import MIN_RECALL, Retrieval

KEY_VARIABLE: Final = "DISTILREC_API_KEY"
AccessLog = Literal["off", "json"]
MAX_K: Final = 1000
MAX_HISTORY: Final = 2000
MAX_BATCH: Final = 256  # requests of one call of /v1/recommend:batch
MAX_BATCH_ITEMS: Final = 20_000  # items that one call of /v1/recommend:batch may ask for in all


class Settings(BaseModel):
    """What the application allows.

    Attributes:
        key_hash: sha256 of the environment's API key, None where there is none; the key itself stays in the command.
        keys_file: more keys, see `serve.keys.read_keys`; every replica reads it, and reads it again when it changes.
        loopback_only: refuse peers on other machines, whichever port they found.
        max_body_bytes: larger bodies are answered with 413.
        max_in_flight: requests that one replica takes at the same time in a burst; more are answered with 429.
        target_wait_s: how long a request should wait under lasting load; what would wait longer is answered with 429.
        retry_after_s: what a shed client is told to wait.
        body_timeout_s: how long the body may take to arrive; then 408.
        timeout_s: how long the answer may take from there; then 504.
        access_log: one JSON line per request, or none.
        log_folder: where the replicas write their logs; standard error where it is None.
        metrics_folder: where replicas of one machine show each other their metrics; None: each shows its own alone.
        retrieval: how models find items.
        min_recall: of approximate retrieval; a model that finds less is not loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_hash: str | None = None
    keys_file: str | None = None
    loopback_only: bool = True
    max_body_bytes: int = Field(default=1_000_000, ge=1)
    max_in_flight: int = Field(default=512, ge=1)
    target_wait_s: float = Field(default=0.03, gt=0)
    retry_after_s: int = Field(default=1, ge=1)
    body_timeout_s: float = Field(default=10.0, gt=0)
    timeout_s: float = Field(default=10.0, gt=0)
    access_log: AccessLog = "off"
    log_folder: str | None = None
    metrics_folder: str | None = None
    retrieval: Retrieval = "exact"
    min_recall: float = Field(default=MIN_RECALL, ge=0, le=1)


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


def access(host: str, key: str | None, keys_file: str | None = None) -> Settings:
    """The settings for listening on `host`.

    Raises:
        ConfigError: other machines could reach the endpoint and there is no key.
    """
    if not is_loopback(host) and not key and not keys_file:
        raise ConfigError(
            f"host {host!r} is reachable from other machines, so an API key is required: give --keys FILE (made by "
            f"`distilrec key new NAME --keys FILE`), set {KEY_VARIABLE} to a long random text (clients send it as "
            "`Authorization: Bearer KEY`), or use --host 127.0.0.1"
        )
    return Settings(key_hash=hash_key(key) if key else None, keys_file=keys_file, loopback_only=is_loopback(host))
