"""A run from the outside: plan it, run it, and gather what a person wants to see at the end."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipelines.cache import Stored, read_stored, recover, storage_errors
from pipelines.cluster.in_job import check_job
from pipelines.config import RunConfig
from pipelines.executor import Executor
from pipelines.fingerprint import fingerprints
from pipelines.graph import Node, build_graph, select
from pipelines.interrupt import interruptible
from pipelines.lock import run_lock
from pipelines.output import streams_to
from pipelines.plan import Decision, plan
from pipelines.preflight import check_sources
from pipelines.progress import Board, make_board
from pipelines.ray_session import ray_session
from pipelines.stages import get_stage
from pipelines.storage.kept import RemoteKeeper, keeping
from pipelines.storage.place import is_remote
from pipelines.storage.probe import check_nodes
from pipelines.storage.remote import Remote

LOG_FILE: Final = "logs/run.log"
LIBRARIES_LOG_FILE: Final = "logs/libraries.log"  # what libraries print past all logging
OWN_LOGGERS: Final = ("components", "pipelines")  # their news is logged, of libraries warnings alone
LEADERBOARD_FILE: Final = "leaderboard.json"
REPORT_FILE: Final = "report.html"


@dataclass(frozen=True)
class RunResult:
    """What a run did.

    Attributes:
        folder: the run folder.
        decisions: for every node, whether it ran and why.
        kept: where the run is kept, if not in its folder alone.
    """

    folder: Path
    decisions: list[Decision]
    kept: str = ""

    @property
    def ran(self) -> int:
        """Number of nodes that ran."""
        return sum(decision.run for decision in self.decisions)

    def as_json(self) -> dict[str, Any]:
        """The result as one JSON document."""
        leaderboard = self.folder / LEADERBOARD_FILE
        report = self.folder / REPORT_FILE
        return {
            "run": self.kept or str(self.folder),
            "nodes": [asdict(decision) for decision in self.decisions],
            "leaderboard": json.loads(leaderboard.read_bytes()) if leaderboard.is_file() else None,
            "report": str(report) if report.is_file() else None,
        }


def chosen_nodes(config: RunConfig, stage: str = "") -> list[Node]:
    """The whole graph, or `stage` with what it needs."""
    nodes = build_graph(config)
    return select(nodes, stage) if stage else nodes


def plan_run(config: RunConfig, stage: str = "", forced_stage: str = "") -> list[Decision]:
    """What `execute_run` would do, without doing it; writes nothing.

    Raises:
        UserError: the run has no such stage.
    """
    nodes = chosen_nodes(config, stage)
    _check_forced(nodes, forced_stage)
    if is_remote(config.output):
        return plan(nodes, _stored_remotely(config, nodes), fingerprints(config, nodes), forced_stage)
    stored = {node.name: read_stored(config.folder / node.folder) for node in nodes}
    return plan(nodes, stored, fingerprints(config, nodes), forced_stage)


def execute_run(config: RunConfig, stage: str = "", forced_stage: str = "") -> RunResult:
    """Run what must run and keep what is done; progress goes to stderr.

    Args:
        config: the configuration.
        stage: stop behind this stage; ``""`` runs the whole graph.
        forced_stage: this stage and what depends on it run in any case.

    Raises:
        DistilrecError: a node failed, or the run folder is taken or cannot be written.
    """
    check_job(config.output, os.environ)
    nodes = chosen_nodes(config, stage)
    _check_forced(nodes, forced_stage)
    with keeping(config) as keeper, holding(config.folder) as board:
        stored = _recovered(config.folder, nodes) | keeper.stored(nodes)
        known = fingerprints(config, nodes)
        executor = Executor(
            config,
            nodes,
            stored,
            known,
            board,
            session=lambda: _session(config),
            forced_stage=forced_stage,
            preflight=partial(check_sources, config),
            keeper=keeper,
        )
        return RunResult(config.folder, executor.run(), config.place)


@contextmanager
def holding(run: Path) -> Iterator[Board]:
    """Work in a run folder: alone, logging, interruptible, with what libraries print in a log; yields the board.

    Raises:
        DistilrecError: the run folder is taken or cannot be written.
    """
    with storage_errors(run), run_lock(run), logging_to(run / LOG_FILE), interruptible(), ExitStack() as stack:
        console = stack.enter_context(streams_to(run / LIBRARIES_LOG_FILE))
        yield stack.enter_context(make_board(console))


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Send our log records and the warnings of all libraries to `file` instead of the terminal."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"))
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in OWN_LOGGERS]
    levels = [logger.level for logger in ours]
    root.addHandler(handler)
    for logger in ours:
        logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logging.captureWarnings(False)
        for logger, level in zip(ours, levels, strict=True):
            logger.setLevel(level)
        root.removeHandler(handler)
        handler.close()


@contextmanager
def _session(config: RunConfig) -> Iterator[None]:
    others = {f"teachers.{name}.resources": config.cluster_of(name) for name in config.teachers}
    with ray_session(config.cluster, others), interruptible():  # Ray puts handlers of its own in place of ours
        check_nodes(config.folder.absolute(), {node.stage for node in build_graph(config)})
        yield


def _stored_remotely(config: RunConfig, nodes: list[Node]) -> dict[str, Stored | None]:
    """What the storage holds; nothing is fetched, and nobody is kept from working on the run."""
    found = RemoteKeeper(Remote(config.place), config.folder).listed(nodes)
    return {node.name: found.get(node.name) for node in nodes}


def _recovered(run: Path, nodes: list[Node]) -> dict[str, Stored | None]:
    for node in nodes:
        recover(run / node.folder)
    return {node.name: read_stored(run / node.folder) for node in nodes}


def _check_forced(nodes: list[Node], forced_stage: str) -> None:
    if forced_stage:
        get_stage(forced_stage)
        select(nodes, forced_stage)
