"""One driver per run folder. The kernel frees the lock when its process dies, so no lock is ever stale."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from components.errors import UserError

LOCK_FILE: Final = ".lock"


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold the run folder; the file says who does.

    Raises:
        UserError: another live process holds it.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{run}: another distilrec works in this run folder ({file.read().strip() or 'unknown process'}); "
                "wait for it, end it, or choose another name= for this run"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.truncate(0)
