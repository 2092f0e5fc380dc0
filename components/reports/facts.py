"""Gather what the report shows from the folders of a run: small, plain JSON values without clock time."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from components.data.prepared import PreparedSet

HISTORY_FILE: Final = "history.json"
DISTILLATION_FILE: Final = "distillation.json"
AUDIT_FILE: Final = "audit.json"
MAX_POINTS: Final = 200  # of the frequency curve
LENGTH_BORDERS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
MANIFEST_KEYS: Final = frozenset({"schema_version", "stage", "key", "code_version", "inputs", "config", "files"}) | {
    "fingerprint",
    "digest",
    "seeds",
    "audit",
}
PACKAGES: Final = ("distilrec", "torch", "ray", "numpy", "polars", "pyarrow")


def data_facts(prepared: PreparedSet) -> dict[str, Any]:
    """Counts of the prepared set, the frequency curve of its items and the histogram of its users' sequences."""
    sequences = prepared.sequences
    return {
        "users": len(sequences),
        "items": prepared.num_items,
        "interactions": int(sequences.lengths.sum()),
        "training_instances": sequences.num_instances,
        "item_frequency": frequency_curve(prepared.counts[1:]),
        "sequence_lengths": length_histogram(sequences.lengths),
    }


def frequency_curve(counts: NDArray[np.int64]) -> dict[str, list[int]]:
    """Rank and count at up to `MAX_POINTS` ranks, even on a log scale; items that training never sees are left out.

    >>> frequency_curve(np.array([1, 9, 0, 4]))
    {'rank': [1, 2, 3], 'count': [9, 4, 1]}
    """
    ordered = -np.sort(-counts[counts > 0])
    if len(ordered) == 0:
        return {"rank": [], "count": []}
    ranks = np.unique(np.geomspace(1, len(ordered), MAX_POINTS).round().astype(int))
    return {"rank": ranks.tolist(), "count": ordered[ranks - 1].tolist()}


def length_histogram(lengths: NDArray[np.int64]) -> dict[str, list[int]]:
    """Users per bar; a bar starts at ``start`` and ends before the next one, the last one is open.

    >>> length_histogram(np.array([2, 2, 7]))
    {'start': [1, 2, 3, 4, 5, 6], 'users': [0, 2, 0, 0, 0, 1]}
    """
    borders = [border for border in LENGTH_BORDERS if border <= lengths.max(initial=1)]
    users = np.bincount(np.searchsorted(borders, lengths, side="right"), minlength=len(borders) + 1)[1:]
    return {"start": borders, "users": users.tolist()}


def training_history(folders: Mapping[str, Iterable[Path]]) -> dict[str, list[list[dict[str, Any]]]]:
    """The epochs of every seed of every model that trained.

    Args:
        folders: by row name, the artifact folders of its seeds.
    """
    found = {name: [_read(folder / HISTORY_FILE) for folder in group] for name, group in folders.items()}
    epochs = {name: [history["epochs"] for history in group if history.get("epochs")] for name, group in found.items()}
    return {name: runs for name, runs in epochs.items() if runs}


def distillation_facts(folders: Mapping[str, Iterable[Path]]) -> dict[str, dict[str, Any]]:
    """``distillation.json`` of every distilled model, averaged over its seeds."""
    found = {name: [_read(folder / DISTILLATION_FILE) for folder in group] for name, group in folders.items()}
    return {name: _mean([facts for facts in group if facts]) for name, group in found.items() if any(group)}


def _mean(group: list[dict[str, Any]]) -> dict[str, Any]:
    """Average numbers, descend into dicts, take everything else from the first."""
    merged: dict[str, Any] = {}
    for key, value in group[0].items():
        values = [facts[key] for facts in group if facts.get(key) is not None]
        if isinstance(value, dict):
            merged[key] = _mean(values)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            merged[key] = float(np.mean(values))
        else:
            merged[key] = value
    return merged


def manifest_counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of a prepared set counts beside the entries that every manifest has."""
    return {name: value for name, value in manifest.items() if name not in MANIFEST_KEYS}


def audit_facts(prepared: Path) -> dict[str, Any]:
    """``audit.json`` of the prepared set; empty where no audit was made."""
    return _read(prepared / AUDIT_FILE)


def versions() -> dict[str, str]:
    """Python and the packages on which numbers depend."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the repository runs without being installed
            continue
    return found


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content
