"""Small stages and a board for tests of the executor: no Ray, no data."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipelines.cache import read_stored
from pipelines.config import RunConfig
from pipelines.driver import chosen_nodes
from pipelines.executor import Executor
from pipelines.graph import Node
from pipelines.plan import Decision
from pipelines.stages import Progress, StageContext, StageFunction


class QuietBoard:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    def __enter__(self) -> QuietBoard:
        return self

    def __exit__(self, *details: object) -> None:
        return None

    def begin(self, node: str, reason: str) -> Progress:
        return self

    def end(self, node: str, outcome: str) -> None:
        self.ended.append((node, outcome))

    def say(self, text: str) -> None: ...

    def start(self, total: int | None, unit: str, done: int = 0) -> None: ...

    def advance(self, n: int = 1, **shown: float | str) -> None: ...

    def note(self, text: str) -> None: ...


class FakeStages:
    """Every stage writes what it read, students also their epochs; tests put functions in between.

    Attributes:
        before: called at the start of a node, by node name.
        ran: nodes in the order in which they started.
        sessions: how often a Ray session was opened.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.before: dict[str, Callable[[StageContext], None]] = {}
        self.ran: list[str] = []
        self.sessions = 0
        self.board = QuietBoard()
        self.fingerprints = {"prepare": "as first seen"}
        self.preflight: Callable[[Sequence[Node]], None] = lambda _: None
        self._lock = threading.Lock()

    def load(self, stage: str) -> StageFunction:
        def function(context: StageContext) -> None:
            with self._lock:
                self.ran.append(context.node)
            self.before.get(context.node, lambda _: None)(context)
            read = {name: (folder / "result.json").read_text() for name, folder in sorted(context.inputs.items())}
            epochs = context.config.training.epochs if context.node.startswith("distill") else 0
            made = [context.node, context.seed, epochs, self.fingerprints.get(context.node), read]
            (context.folder / "result.json").write_text(json.dumps(made))

        return function

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        self.sessions += 1
        yield

    def run(self, stage: str = "", forced: str = "") -> list[Decision]:
        """Run the graph as the driver does."""
        self.ran = []
        nodes = chosen_nodes(self.config, stage)
        stored = {node.name: read_stored(self.config.folder / node.folder) for node in nodes}
        return Executor(
            self.config,
            nodes,
            stored,
            self.fingerprints,
            self.board,
            self.session,
            forced,
            self.load,
            self.preflight,
        ).run()


def manifests(run: Path) -> dict[str, bytes]:
    """All manifests of a run, by folder."""
    return {str(file.parent.relative_to(run)): file.read_bytes() for file in sorted(run.rglob("manifest.json"))}
