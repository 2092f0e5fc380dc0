"""A study of seconds: two teachers and a few students of one epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.data.synthetic import write_world
from pipelines.config import RunConfig
from tests.pipelines.run_configs import make_config

TINY: dict[str, Any] = {"dim": 8, "inner_dim": 8, "num_experts": 2, "max_length": 6}
SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 64, "checkpoint_seconds": 0}
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "input": {"interactions": "gear/interactions.csv", "items": "gear/items.csv"},
    "prepare": {"min_interactions_per_item": 2},
    "features": {"max_tokens": 8},
    "teachers": {
        "text": {"kind": "unisrec", "mode": "inductive", "training": SHORT, **TINY},
        "id": {"kind": "unisrec", "mode": "transductive", "training": SHORT, **TINY},
    },
    "student": {"kind": "sasrec", "dim": 8, "inner_dim": 8, "max_length": 6},
    "training": SHORT,
    "distillation": {"temperature": 0.1},
    "study": {
        "students": {"sasrec": {"kind": "sasrec"}, "fm": {"kind": "fm"}},
        "baselines": ["mostpop", "gru4rec"],
        "sweeps": {"temperature": [0.1, 1.0], "weight": [], "dim": [4]},
        "cost": {"users": 20, "rounds": 1},
    },
}


def write_tiny_world(folder: Path) -> Path:
    """Logs of 60 users."""
    write_world(folder, num_users=60, num_items=60, domains=("gear",), pictures=False)
    return folder


def tiny_config(folder: Path, *overrides: str, **sections: Any) -> RunConfig:
    """The configuration with its runs below `folder`; `sections` replace whole sections."""
    folder.mkdir(parents=True, exist_ok=True)
    return make_config(folder, {**CONTENT, "data": str(folder), **sections}, *overrides)
