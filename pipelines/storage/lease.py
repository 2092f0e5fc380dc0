"""One driver per run in an object store, where no kernel keeps locks: a lease, renewed while its holder lives.

Object stores cannot be asked to write only where nothing is. Two drivers that start within the same second may both
write; each reads back a moment later, and only the last writer finds its own name. What a lease guards is written whole
and read with hashes, so that even two holders could not damage a finished node.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from components.errors import StorageError, UserError
from pipelines.storage.remote import Remote

LEASE: Final = ".lease"
CLOCK: Final = ".clock"
RENEWED: Final = 20.0  # seconds between two renewals
EXPIRED: Final = 90.0  # seconds without a renewal
SETTLING: Final = 1.0  # seconds until a competitor's lease can be seen


@contextmanager
def lease(
    remote: Remote, renewed: float = RENEWED, expired: float = EXPIRED, settling: float = SETTLING
) -> Iterator[None]:
    """Hold the run at `remote`.

    Raises:
        UserError: another driver holds it.
        StorageError: nothing can be written there.
    """
    own = f"process {os.getpid()} on {socket.gethostname()}, lease {secrets.token_hex(8)}".encode()
    remote.write(CLOCK, own)  # its time of change is now, by the clock of the storage
    holder, since, now = remote.read(LEASE), remote.changed(LEASE), remote.changed(CLOCK)
    if holder and since and now and now - since < expired:
        raise _taken(remote, holder, expired)
    remote.write(LEASE, own)
    over = threading.Event()
    over.wait(settling)
    if (holder := remote.read(LEASE)) != own:
        raise _taken(remote, holder or b"", expired)
    renewal = threading.Thread(target=_renew, args=(remote, own, over, renewed), name="lease", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join()
        if remote.read(LEASE) == own:
            remote.delete(LEASE)
            remote.delete(CLOCK)


def _renew(remote: Remote, own: bytes, over: threading.Event, renewed: float) -> None:
    import logging

    while not over.wait(renewed):
        try:
            remote.write(LEASE, own)
        except StorageError as error:
            logging.getLogger(__name__).warning("the lease of %s was not renewed: %s", remote.uri, error)


def _taken(remote: Remote, holder: bytes, expired: float) -> UserError:
    return UserError(
        f"{remote.uri}: another distilrec works on this run ({holder.decode(errors='replace')}); wait for it, stop "
        "it, or "
        f"choose another name= for this run; where it was killed, its lease ends {expired:g} seconds after its last "
        "sign"
    )
