"""Runs the graph: ready nodes in threads of the driver, each in its own folder, until all are done or one fails."""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from components.artifacts.format import read_json
from components.errors import DistilrecError
from pipelines.cache import (
    Stored,
    canonical_json,
    make_partial,
    node_key,
    publish,
    recover,
    sealed_digest,
    storage_errors,
    work_folder,
    write_atomically,
    write_manifest,
)
from pipelines.failures import failure, joined
from pipelines.graph import Node
from pipelines.keeper import Keeper
from pipelines.plan import Decision, decide, forced_nodes
from pipelines.progress import Board, duration
from pipelines.stages import STAGES, Progress, StageContext, StageFunction

if TYPE_CHECKING:
    from pipelines.config import ClusterConfig, RunConfig

TRAINS: Final = ("pretrain", "teach", "search", "distill")
TIMING_FOLDER: Final = "logs/timing"


@dataclass(frozen=True)
class Job:
    """One node, ready to run: what it reads and the key of what it writes."""

    node: Node
    key: str
    inputs: Mapping[str, str]
    fingerprint: str
    folders: Mapping[str, Path]


@dataclass
class Executor:
    """Runs nodes.

    Args:
        config: the whole configuration.
        nodes: the graph or a part that is closed under inputs; inputs come first.
        stored: what the run folder holds, by node name.
        fingerprints: identity of outside files, by node name.
        board: shows progress.
        session: opened before the first node that needs Ray; a run with nothing to do never starts it.
        forced_stage: runs in any case, with all that depends on it.
        load: finds the function of a stage.
        keeper: keeps results beside the run folder, and brings those that it lacks.
        preflight: called before the first node that trains, with all nodes that have no result; an error of it stops
            everything that would train.
    """

    config: RunConfig
    nodes: Sequence[Node]
    stored: Mapping[str, Stored | None]
    fingerprints: Mapping[str, str]
    board: Board
    session: Callable[[], AbstractContextManager[None]]
    forced_stage: str = ""
    load: Callable[[str], StageFunction] = lambda stage: STAGES[stage].load()
    preflight: Callable[[Sequence[Node]], None] = lambda missing: None
    keeper: Keeper = field(default_factory=Keeper)
    decisions: list[Decision] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._by_name = {node.name: node for node in self.nodes}
        self._forced = forced_nodes(self.nodes, self.forced_stage)
        self._digests: dict[str, str] = {}
        self._running: dict[str, Node] = {}
        self._results: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()
        self._failures: list[DistilrecError] = []
        self._lost: set[str] = set()  # failed, or depending on what failed
        self._session_open = self._is_checked = False
        self._run = self.config.folder.absolute()  # workers have another current folder

    def run(self) -> list[Decision]:
        """Run all that must run; return what was decided for each node.

        A failed node stops only what depends on it: other teachers, for instance, go on and are kept.

        Raises:
            DistilrecError: one error for all nodes that failed; everything that does not depend on them has finished.
        """
        waiting = list(self.nodes)
        with ExitStack() as stack:
            while waiting or self._running:
                waiting = self._start_ready(waiting, stack)
                if self._running:
                    self._take_result()
                waiting = self._without_lost(waiting)
        if self._failures:
            raise joined(self._failures)
        return self.decisions

    def _start_ready(self, waiting: list[Node], stack: ExitStack) -> list[Node]:
        """Settle every node whose inputs are done: skip it, or start it where its stage has a free place."""
        left = []
        for node in waiting:
            if not all(name in self._digests for name in node.inputs) or not self._has_place(node):
                left.append(node)
                continue
            job = self._job(node)
            decision = decide(
                node, self.stored.get(node.name), job.inputs, job.fingerprint, self._forced.get(node.name, "")
            )
            if decision.run and node.stage in TRAINS and not self._may_train():
                continue
            self.decisions.append(decision)
            if decision.run:
                if STAGES[node.stage].needs_ray and not self._session_open:
                    stack.enter_context(self.session())
                    self._session_open = True
                self._start(job, decision.reason)
            else:
                stored = self.stored[node.name]
                self._digests[node.name] = stored.digest if stored else ""
        return left

    def _may_train(self) -> bool:
        """Whether all that trainings start from is in order; where it is not, none of them runs."""
        training = {node.name for node in self.nodes if node.stage in TRAINS}
        if not self._is_checked:
            self._is_checked = True
            try:
                self.keeper.fetch("prepare")
                self.preflight([node for node in self.nodes if self._may_run(node)])
            except DistilrecError as error:
                self._failures.append(error)
                self._lost |= training
        return not training <= self._lost

    def _may_run(self, node: Node) -> bool:
        """Whether a node has no result, or one of another configuration; inputs may still make others run."""
        stored = self.stored.get(node.name)
        if stored is None or stored.damage or node.name in self._forced:
            return True
        return canonical_json(stored.manifest.get("config")) != canonical_json(node.part)

    def _without_lost(self, waiting: list[Node]) -> list[Node]:
        """The nodes that can still be reached: none of their inputs failed, or waits for one that did."""
        for node in waiting:  # inputs come first
            if not self._lost.isdisjoint(node.inputs):
                self._lost.add(node.name)
        return [node for node in waiting if node.name not in self._lost]

    def _has_place(self, node: Node) -> bool:
        limit = parallel_limit(node.stage, self.config.cluster)
        return limit is None or Counter(running.stage for running in self._running.values())[node.stage] < limit

    def _job(self, node: Node) -> Job:
        inputs = {name: self._digests[name] for name in node.inputs}
        fingerprint = self.fingerprints.get(node.name, "")
        folders = {name: self._run / self._by_name[name].folder for name in node.inputs}
        return Job(node, node_key(node, inputs, fingerprint), inputs, fingerprint, folders)

    def _start(self, job: Job, reason: str) -> None:
        name = job.node.name
        progress = self.board.begin(name, reason)
        self._running[name] = job.node

        def work() -> None:
            try:
                run_job(self.config, job, progress, self.load(job.node.stage), self.keeper)
            except BaseException as error:  # noqa: BLE001 - the main thread decides what it means
                self._results.put((name, error))
            else:
                self._results.put((name, None))

        # A daemon: an interrupted driver does not wait for it.
        threading.Thread(target=work, name=name, daemon=True).start()

    def _take_result(self) -> None:
        started = {name: self._by_name[name] for name in self._running}
        name, error = self._results.get()
        node = started[name]
        del self._running[name]
        if error is None:
            self._digests[name] = sealed_digest(self._run / node.folder)
            self.board.end(name, f"done in {duration(_seconds(self._run, node))}")
        else:
            self._failures.append(failure(name, error, self._run))
            self._lost.add(name)
            self.board.end(name, "failed")


def run_job(
    config: RunConfig, job: Job, progress: Progress, function: StageFunction, keeper: Keeper | None = None
) -> None:
    """Call the stage in a fresh folder, then seal the folder, rename it into place and hand it to the keeper."""
    run, node = config.folder.absolute(), job.node
    folder = run / node.folder
    started = time.perf_counter()
    with storage_errors(run):
        for read in job.folders.values():
            (keeper or Keeper()).fetch(read.relative_to(run).as_posix())
        recover(folder)
        partial = make_partial(folder)
        work = work_folder(run, node, job.key)
        context = StageContext(config, node.name, node.suffix, partial, work, dict(job.folders), progress, node.seed)
        function(context)
        write_manifest(partial, node, job.key, job.inputs, job.fingerprint)
        context.timing["seconds"] = time.perf_counter() - started
        _write_timing(run, node, context.timing)
        publish(partial, folder)
        (keeper or Keeper()).keep(node.folder)
        shutil.rmtree(work.parent, ignore_errors=True)


def parallel_limit(stage: str, cluster: ClusterConfig) -> int | None:
    """How many nodes of a stage may run at the same time; None: all."""
    limits: dict[str, int | None] = {
        "pretrain": cluster.max_parallel_teachers,
        "teach": cluster.max_parallel_teachers,
        "distill": cluster.max_parallel_students,
    }
    return limits.get(stage, 1)


def timing_file(run: Path, node: str) -> Path:
    """Seconds and rates of a node; outside its folder, because no manifest may depend on a clock."""
    return run / TIMING_FOLDER / f"{node.replace('/', '--')}.json"


def recorded_times(run_folder: Path) -> dict[str, dict[str, float]]:
    """What every node of the run recorded in ``logs/timing``, by node name."""
    files = sorted((run_folder / TIMING_FOLDER).glob("*.json"))
    return {file.stem.replace("--", "/"): read_json(file) for file in files}


def _write_timing(run: Path, node: Node, timing: Mapping[str, float]) -> None:
    file = timing_file(run, node.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(timing, indent=2, sort_keys=True))


def _seconds(run: Path, node: Node) -> float:
    return float(json.loads(timing_file(run, node.name).read_text(encoding="utf-8"))["seconds"])
