"""What students of one study begin with: those of the same shape that another study has trained on its own items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.artifacts.format import read_json
from components.errors import ConfigError
from components.schema import MANIFEST_FILE
from components.students.heads import HeadConfig
from pipelines.cache import read_stored

TRIALS_FOLDER: Final = Path("study", "trials")  # of a run
OF_THE_LEARNING: Final = ("dropout", "attention_dropout", *HeadConfig.model_fields)  # no part in shapes
OF_THE_COMPRESSION: Final = ("input", "output", "sharing")  # what says more than where blocks end
PLACES: Final = ("sasrec",)  # have a vector per place, so that the length of a history is one of their shapes


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
    """The student of `seed` in the study of `run` whose network has the shape of `student`, the newest of several.

    Where blocks end and how wide they are may differ: they belong to the items. A student with a single block is
    another one (B1 of CpRec).

    Args:
        run: a run folder.
        student: ``kind`` and all arguments.
        seed: with which both were trained.

    Raises:
        ConfigError: there is no such study, or no such student.
    """
    trials = run / TRIALS_FOLDER
    if not trials.is_dir():
        raise ConfigError(
            f"study.cprec.transfer: {run} holds no study; give the run folder of a finished `distilrec study cprec`"
        )
    manifests = [file for file in trials.glob(f"*/{MANIFEST_FILE}") if _fits(read_json(file), student, seed)]
    for file in sorted(manifests, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        stored = read_stored(file.parent)
        if stored is not None and not stored.damage:
            return Start(file.parent.absolute(), stored.digest)
    raise ConfigError(
        f"study.cprec.transfer: {run} holds no finished {student['kind']} of seed {seed} with {_described(student)}; "
        "run `distilrec study cprec --only main` there with the same students and seeds"
    )


def _fits(manifest: Mapping[str, Any], student: Mapping[str, Any], seed: int) -> bool:
    theirs = manifest["config"]
    alone = theirs["distillation"] is None and "start" not in manifest["inputs"]
    return alone and manifest["seeds"] == [seed] and _network(theirs["student"]) == _network(student)


def _network(student: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that decide the shape of the network, and none that belongs to the items."""
    compression = student.get("compression") or {}
    left_out = {*OF_THE_LEARNING, "compression"} | ({"max_length"} if student["kind"] not in PLACES else set())
    own = {name: value for name, value in student.items() if name not in left_out}
    own |= {name: compression.get(name) for name in OF_THE_COMPRESSION}
    return own | {"one block": not compression.get("boundaries") and compression.get("num_blocks") == 1}


def _described(student: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _network(student).items() if name != "kind")
