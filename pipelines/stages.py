"""The stages: what a stage function receives, and the table of all stages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from components.errors import StageError, UnknownNameError

if TYPE_CHECKING:
    from pipelines.config import RunConfig

SEED_MARK: Final = "/seed-"  # distill/VARIANT/seed-S
EXTRA_MANIFEST_FILE: Final = "manifest_extra.json"  # a stage may leave its own counts here; they join the manifest


class Progress(Protocol):
    """What a stage tells the person who waits. Safe to call from any thread of the driver."""

    def start(self, total: int | None, unit: str, done: int = 0) -> None:
        """Begin counting `total` things called `unit` (``"rows"``); None where the total is unknown.

        `done` of them were done before, and say nothing of the speed.
        """

    def advance(self, n: int = 1, **shown: float | str) -> None:
        """Count `n` more; `shown` are the latest values worth a look, such as ``loss=3.2``."""

    def note(self, text: str) -> None:
        """Say what happens now; replaces the previous note."""

    def say(self, text: str) -> None:
        """Say what is worth a line that stays, here and in the run's log."""


@dataclass(frozen=True)
class StageContext:
    """All that one call of a stage may use.

    Attributes:
        config: the whole, validated configuration.
        node: name of the node, such as ``"teach/unisrec-text"`` or ``"distill/prm-kd/seed-0"``.
        name: the node's name without the stage: ``"unisrec-text"``, ``"prm-kd/seed-0"``, ``""`` for ``"prepare"``.
        folder: write here; renamed into place when the function returns.
        work: survives a kill (checkpoints); removed when the node is done.
        inputs: finished folders of the nodes that this one reads, by node name.
        progress: what the person who waits is told.
        seed: the node's own seed, the first of the run's seeds where the node has none.
        timing: seconds and rates; stored in ``logs/``, never hashed.
    """

    config: RunConfig
    node: str
    name: str
    folder: Path
    work: Path
    inputs: dict[str, Path]
    progress: Progress
    seed: int = 0
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """The variant of a ``distill`` node: ``"prm-kd"`` of ``"distill/prm-kd/seed-0"``."""
        return self.name.split(SEED_MARK)[0]

    def input(self, node: str) -> Path:
        """The finished folder of the input `node`.

        Raises:
            StageError: the graph does not hand this node to the stage.
        """
        if node not in self.inputs:
            raise StageError(f"{self.node} does not read {node!r}; it reads: {', '.join(self.inputs) or 'nothing'}")
        return self.inputs[node]


StageFunction = Callable[[StageContext], None]


@dataclass(frozen=True)
class Stage:
    """One kind of work.

    Attributes:
        name: first part of the names of its nodes.
        module: holds ``run(context)``; imported when the stage runs, so that the command line starts fast.
        code_version: raise it when the code writes something else for the same input; finished nodes then run again.
        about: one line for people.
        needs_ray: whether a Ray session must be open.
    """

    name: str
    module: str
    code_version: int
    about: str
    needs_ray: bool = True

    def load(self) -> StageFunction:
        """Import the stage's function."""
        return cast(StageFunction, importlib.import_module(self.module).run)


def _table(stages: Iterable[Stage]) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages}


STAGES: Final[dict[str, Stage]] = _table(
    [
        Stage("prepare", "pipelines.prepare", 1, "logs to sequences, splits and a catalog"),
        Stage("features", "pipelines.features", 1, "item texts to vectors"),
        Stage("pretrain", "pipelines.pretrain", 1, "a teacher learns from other domains"),
        Stage("teach", "pipelines.teach", 1, "teachers learn from the prepared set"),
        Stage("annotate", "pipelines.annotate", 2, "teacher states become columns of the sequences"),
        Stage("stream", "pipelines.stream.stage", 1, "methods learn from ratings as they come", needs_ray=False),
        Stage("search", "pipelines.search.stage", 1, "many students, the best of which under a budget is kept"),
        Stage("distill", "pipelines.distill", 1, "students learn, with and without teachers"),
        Stage("evaluate", "pipelines.evaluate", 1, "full ranking, leaderboard, report"),
        Stage("export", "pipelines.export", 3, "the winner becomes the artifact that serves", needs_ray=False),
    ]
)


def get_stage(name: str) -> Stage:
    """The stage called `name`.

    Raises:
        UnknownNameError: no stage has this name.
    """
    if name not in STAGES:
        raise UnknownNameError("stage", name, STAGES)
    return STAGES[name]
