"""A stream of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.pipelines.run_configs import write_config
from tests.pipelines.stream.logs import rating_lines, write_log

CONTENT: dict[str, Any] = {
    "name": "tiny",
    "input": {"interactions": "ratings.csv"},
    "prepare": {"task": "ratings"},
    "stream": {
        "methods": ["fixed", "esapn"],
        "bn_mode": "group",
        "batch_size": 40,
        "max_frequency": 64,
        "checkpoint_seconds": 0,
    },
}


def stream_config(folder: Path, lines: list[str] | None = None, **sections: Any) -> Path:
    """A log and its configuration; `sections` replace whole ones."""
    write_log(folder, rating_lines(600) if lines is None else lines)
    return write_config(folder, {**CONTENT, "data": str(folder), "output": str(folder / "runs"), **sections})
