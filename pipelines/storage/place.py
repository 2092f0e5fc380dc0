"""Places where runs are kept, and where this machine works on those that it does not hold itself."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SCRATCH: Final = "DISTILREC_SCRATCH"  # where a node keeps copies; large and fast, emptied by whoever owns the node


def is_remote(place: str) -> bool:
    """Whether a place is a URI.

    >>> is_remote("s3://bucket/runs"), is_remote("/shared/runs")
    (True, False)
    """
    return "://" in place


def scratch(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of copies on this node."""
    return Path(environment.get(SCRATCH) or Path(tempfile.gettempdir()) / f"distilrec-{os.getuid()}")


def working_folder(output: str) -> Path:
    """The folder of all runs that are kept at `output`: itself, or a folder of copies where it is a URI."""
    if not is_remote(output):
        return Path(output)
    return scratch() / "runs" / hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:16]
