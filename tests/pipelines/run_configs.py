"""Configurations for the tests of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipelines.config import RunConfig
from pipelines.load_config import load_config

FULL: dict[str, Any] = {
    "name": "full",
    "data": "/data",
    "seeds": [0, 1],
    "input": {"interactions": "log.csv", "items": "items.csv"},
    "features": {},
    "pretrain": {
        "domains": {
            "food": {"data": "food", "input": {"interactions": "log.csv"}},
            "arts": {"data": "/arts", "input": {"interactions": "log.csv"}},
        }
    },
    "teachers": {
        "text": {"kind": "unisrec", "pretrained": True},
        "id": {"kind": "unisrec"},
    },
    "student": {"kind": "sasrec", "dim": 8},
    "distillation": {},
    "variants": {"average": {"weights": "average"}},
}
PLAIN_RUN: dict[str, Any] = {
    "name": "plain",
    "data": "/data",
    "input": {"interactions": "log.csv"},
    "baselines": ["mostpop", "plain"],
}


def write_config(folder: Path, content: dict[str, Any]) -> Path:
    """The configuration as a YAML file in `folder`."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def make_config(folder: Path, content: dict[str, Any], *overrides: str) -> RunConfig:
    """A loaded configuration whose runs lie below `folder`."""
    return load_config(write_config(folder, content), [f"output={folder / 'runs'}", *overrides])
