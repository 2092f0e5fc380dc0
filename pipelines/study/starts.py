"""What students of one study begin with: those of the same shape that another study has trained on its own items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.artifacts.format import read_json
from components.errors import ConfigError
from components.schema import MANIFEST_FILE
from pipelines.cache import read_stored

TRIALS_FOLDER: Final = Path("study", "trials")  # of a run
OF_THE_CATALOG: Final = ("max_length", "dropout", "compression")  # arguments that may differ
OF_THE_NETWORK: Final = ("input", "output", "sharing")  # of a compression


@dataclass(frozen=True)
class Start:
    """A finished trial of another study.

    Attributes:
        folder: its artifact, absolute.
        digest: of its manifest.
    """

    folder: Path
    digest: str


def find_start(run: Path, student: Mapping[str, Any], seed: int) -> Start:
    """The student of `seed` in the study of `run` whose network has the shape of `student`.

    Args:
        run: a run folder.
        student: ``kind`` and all arguments.
        seed: with which both were trained.

    Raises:
        ConfigError: there is no such study, no such student, or more than one.
    """
    trials = run / TRIALS_FOLDER
    if not trials.is_dir():
        raise ConfigError(
            f"study.cprec.transfer: {run} holds no study; give the run folder of a finished `distilrec study cprec`"
        )
    found = {}
    for folder in sorted(trials.iterdir()):
        stored = read_stored(folder)
        if stored is None or stored.damage:
            continue
        manifest = read_json(folder / MANIFEST_FILE)
        theirs = manifest["config"]
        alone = theirs["distillation"] is None and "start" not in manifest["inputs"]
        if alone and manifest["seeds"] == [seed] and _network(theirs["student"]) == _network(student):
            found[folder.name] = Start(folder.absolute(), stored.digest)
    if len(found) != 1:
        held = f"{len(found)} of them ({', '.join(found)})" if found else "none"
        raise ConfigError(
            f"study.cprec.transfer: {run} must hold one finished {student['kind']} of seed {seed} with "
            f"{_described(student)} and holds {held}; run `distilrec study cprec --only main` there with the same "
            "students and seeds"
        )
    return next(iter(found.values()))


def _network(student: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that decide the shape of the network, and of nothing that belongs to the items."""
    compression = student.get("compression") or {}
    own = {name: value for name, value in student.items() if name not in OF_THE_CATALOG}
    return own | {name: compression.get(name) for name in OF_THE_NETWORK}


def _described(student: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _network(student).items() if name != "kind")
