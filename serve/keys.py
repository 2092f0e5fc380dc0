"""API keys: their hashes, from the environment or a file that may change while the endpoint answers.

A key is a long random text, so a plain sha256 protects it: there is nothing to guess that a slow hash would delay.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from components.errors import ConfigError
from serve.settings import KEY_VARIABLE, Settings, hash_key

logger = logging.getLogger("distilrec.serve")
ENVIRONMENT: Final = "environment"  # what logs call the key of DISTILREC_API_KEY
LOOK_EVERY_S: Final = 1.0
LINE: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-f]{64})")
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Keys:
    """Who may ask. A keys file is looked at again once a second; a broken one leaves the known keys as they are.

    Args:
        settings: the hash of the environment's key, and the path of the keys file.
        clock: seconds that never go back.

    Raises:
        ConfigError: the keys file cannot be used.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._fixed = {ENVIRONMENT: settings.key_hash} if settings.key_hash else {}
        self._file = Path(settings.keys_file) if settings.keys_file else None
        self._clock, self._looked = clock, clock()
        self._seen = _signature(self._file) if self._file else None
        self._hashes = {**self._fixed, **(read_keys(self._file) if self._file else {})}

    @property
    def needed(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._hashes)

    def identify(self, key: str) -> str | None:
        """The name of `key`, None for a wrong one; every hash is compared, so that the time tells nothing."""
        self._look()
        given, found = hash_key(key), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def _look(self) -> None:
        now = self._clock()
        if self._file is None or now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        signature = _signature(self._file)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._hashes = {**self._fixed, **read_keys(self._file)}
        except ConfigError as error:
            logger.error("the known keys stay valid: %s", error)
        else:
            logger.warning("read %d keys again: %s", len(self._hashes), ", ".join(self._hashes))


def _signature(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_keys(file: Path) -> dict[str, str]:
    """The sha256 of every key by its name, from lines ``name:sha256hex``; empty lines and ``#`` comments are skipped.

    Raises:
        ConfigError: no such file, others than its owner may write it, a line is wrong, a name stands twice, or it holds
            no key.
    """
    try:
        mode, lines = file.stat().st_mode, file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"keys file {file}: {reason}; make it with `distilrec key new NAME --keys {file}`") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"keys file {file}: others may write to it and so let themselves in; run `chmod 600 {file}`")
    if mode & stat.S_IROTH:
        logger.warning("keys file %s: everybody may read the hashes in it; `chmod 600` it where you can", file)
    found: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:  # the line itself is not shown: it may hold a key that was pasted there
            raise ConfigError(
                f"keys file {file}, line {number}: expected `name:sha256` (64 hex digits), the line that "
                "`distilrec key new` writes"
            )
        if match[1] in found or match[1] == ENVIRONMENT:
            raise ConfigError(f"keys file {file}, line {number}: the name {match[1]!r} is taken; choose another")
        found[match[1]] = match[2]
    if not found:
        raise ConfigError(f"keys file {file}: holds no key; add one with `distilrec key new NAME --keys {file}`")
    return found


def new_key(name: str, file: Path | None = None) -> tuple[str, str]:
    """A fresh key and its line for the keys file; the line is appended to `file`, which is made readable for its owner
    alone.

    Raises:
        ConfigError: the name is unusable or taken, or the file cannot be used.
    """
    if not NAME.fullmatch(name) or name == ENVIRONMENT:
        raise ConfigError(f"key name {name!r}: use 1 to 64 of the characters A-Z a-z 0-9 . _ - (not {ENVIRONMENT!r})")
    key = f"dr_{secrets.token_urlsafe(32)}"
    line = f"{name}:{hash_key(key)}"
    if file is not None:
        if file.exists() and file.stat().st_size and name in read_keys(file):
            raise ConfigError(f"keys file {file}: has a key {name!r} already; choose another name, or remove its line")
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "a+b") as opened:
                whole = not opened.tell() or (opened.seek(-1, os.SEEK_END), opened.read(1))[1] == b"\n"
                opened.write(("" if whole else "\n").encode() + f"{line}\n".encode())
        except OSError as error:
            raise ConfigError(f"keys file {file}: cannot be written ({error.strerror})") from error
    return key, line


def given_key(headers: Mapping[str, str]) -> str:
    """The key of a request; empty where there is none in the headers that hold one."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def expected(headers: Mapping[str, str]) -> str:
    """What to tell a client whose key was not accepted; nothing that it sent is repeated, it may be a key."""
    wanted = "send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`"
    if not given_key(headers):
        if "authorization" in headers:
            return f"the header Authorization lacks the word Bearer before the key; {wanted}"
        return f"a valid API key is required; {wanted}"
    return f"this API key is not valid; ask who runs the endpoint ({KEY_VARIABLE} or its keys file), and {wanted}"
