"""What a driver that runs as a Ray job looks at first, however it was submitted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from components.errors import ConfigError, ResourceError

JOB: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it in the driver of a job
CLIENT_PYTHON: Final = "DISTILREC_CLIENT_PYTHON"  # what `distilrec submit` was run with


def python_version() -> str:
    """Such as ``3.11``."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def check_job(output: str, environment: Mapping[str, str]) -> None:
    """Refuse what cannot end well in a job; nothing where this process is none.

    Args:
        output: where the configuration keeps runs.
        environment: of the process.

    Raises:
        ResourceError: the client that submitted the job has another Python.
        ConfigError: the run would be lost with the job's temporary folder.
    """
    if JOB not in environment:
        return
    client, own = environment.get(CLIENT_PYTHON), python_version()
    if client not in (None, own):
        raise ResourceError(
            f"the cluster runs Python {own} ({sys.executable}), the client that submitted this job {client}; install "
            "the "
            "same on both sides, or send it with `ray job submit`, which does not compare them"
        )
    if not is_elsewhere(output):
        raise ConfigError(
            f"output: {output} would lie in the job's own temporary folder, {Path.cwd()}; set output= to a folder "
            "that all "
            "nodes see, such as /shared/runs, or to s3://BUCKET/runs or gs://BUCKET/runs"
        )


def is_elsewhere(place: str) -> bool:
    """Whether a place is found from any folder: an absolute path, or a URI.

    >>> is_elsewhere("/shared/runs"), is_elsewhere("s3://bucket/runs"), is_elsewhere("runs")
    (True, True, False)
    """
    return Path(place).is_absolute() or "://" in place
