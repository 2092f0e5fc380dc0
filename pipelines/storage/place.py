"""Places where runs are kept, and where this machine works on those that it does not hold itself."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from components.errors import StorageError

SCRATCH: Final = "DISTILREC_SCRATCH"  # where a node keeps copies; large and fast, emptied by whoever owns the node


def is_remote(place: str) -> bool:
    """Whether a place is a URI.

    >>> is_remote("s3://bucket/runs"), is_remote("/shared/runs")
    (True, False)
    """
    return "://" in place


def scratch(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of copies on this node."""
    place = environment.get(SCRATCH) or Path(tempfile.gettempdir()) / f"distilrec-{os.getuid()}"
    return Path(place).expanduser().resolve()  # paths of a run are compared


def own_scratch() -> Path:
    """The folder of copies, made where it is missing and for nobody else: what lies in it is believed.

    Raises:
        StorageError: it belongs to somebody else.
    """
    folder = scratch()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise StorageError(f"{folder}: belongs to another user; set {SCRATCH} to a folder of your own")
    return folder


def working_folder(output: str) -> Path:
    """The folder of all runs that are kept at `output`: itself, or a folder of copies where it is a URI."""
    if not is_remote(output):
        return Path(output)
    return scratch() / "runs" / hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:16]
