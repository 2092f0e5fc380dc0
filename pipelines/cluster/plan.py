"""What every stage of a run will ask for, what the cluster has or may grow to, and what can never run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from components.data.readers import estimate_rows, open_log
from components.errors import DataError, ResourceError
from components.schema import MANIFEST_FILE
from components.students import STUDENTS
from pipelines.cluster import estimate
from pipelines.cluster.estimate import Cost, DataSize, Power
from pipelines.cluster.in_job import is_elsewhere
from pipelines.cluster.placement import STAGE_ROLES, Resources, Role, eligible, total
from pipelines.config import ClusterConfig, RunConfig
from pipelines.executor import parallel_limit, recorded_times
from pipelines.graph import Node, build_graph
from pipelines.model_choice import ModelChoice
from pipelines.ray_session import check_data_role, check_resources, grown, local_cpus, own_roles, use_gpu
from pipelines.stages import SEED_MARK

if TYPE_CHECKING:
    from pipelines.cluster.dashboard import Dashboard

DRIVER: Final = "driver"
GIB: Final = 2**30


@dataclass(frozen=True)
class Ask:
    """What one kind of work asks for.

    Attributes:
        work: a stage, or a stage and its model.
        nodes: how many nodes of the graph it is.
        role: whose placement counts.
        workers: processes of one node of the graph.
        cpus: of one process.
        gpus: of one process.
        custom: resources that say where.
        places: processes that the cluster has room for at once.
        at_once: nodes of the graph that run at the same time.
        seconds: of all of them; None where nothing is known.
        basis: whether the time was measured in this run folder, or is estimated.
        bytes: the largest process holds at least so many.
        problem: why it can never run.
    """

    work: str
    nodes: int
    role: str
    workers: int
    cpus: float
    gpus: float
    custom: dict[str, float]
    places: int
    at_once: int
    seconds: float | None = None
    basis: str = "estimated"
    bytes: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class RunPlan:
    """The asks of a run, the nodes that count, and remarks."""

    run: str
    asks: list[Ask]
    nodes: list[Resources]
    size: DataSize | None
    notes: list[str]

    def check(self) -> None:
        """Refuse what can never run.

        Raises:
            ResourceError: all that is wrong.
        """
        if problems := list(dict.fromkeys(ask.problem for ask in self.asks if ask.problem)):
            raise ResourceError("this run cannot run there:\n" + "\n".join(problems))

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "run": self.run,
            "data": asdict(self.size) if self.size else None,
            "nodes": [dict(node) for node in self.nodes],
            "stages": [asdict(ask) for ask in self.asks],
            "seconds": sum(ask.seconds or 0.0 for ask in self.asks),
            "notes": self.notes,
        }


def run_plan(config: RunConfig, dashboard: Dashboard | None = None) -> RunPlan:
    """Plan a run for a cluster that is there, for what `cluster.grows_to` names, or for this machine.

    Raises:
        ConfigError: the file of the cluster cannot be read.
        ResourceError: the cluster does not answer.
    """
    notes: list[str] = []
    if dashboard:
        dashboard.check_version()
    nodes, where = _nodes(config.cluster, dashboard)
    notes.append(where)
    size = _size(config, notes)
    planner = Planner(config, nodes, size)
    asks = [planner.ask(work, members) for work, members in _groups(build_graph(config))]
    if (dashboard or config.cluster.grows_to) and not is_elsewhere(config.output):
        text = f"output: {config.output} is a folder of this machine; jobs need one that all nodes see, or s3://, gs://"
        asks = [replace(asks[0], problem=asks[0].problem or text), *asks[1:]]
    if config.cluster.use_gpu == "auto" and not total(nodes, "GPU"):
        notes.append("no GPU there: everything trains on CPUs")
    notes.append(
        "times are rough (a factor of two or three); trainings count all epochs, early stopping ends them sooner"
    )
    return RunPlan(config.place, asks, nodes, size, notes)


def _nodes(cluster: ClusterConfig, dashboard: Dashboard | None) -> tuple[list[Resources], str]:
    """The nodes that count, and where they come from."""
    if more := grown(cluster):
        now = f", {len(dashboard.nodes())} of them live" if dashboard else ""
        return more, f"{cluster.grows_to}: up to {len(more)} nodes{now}"
    if dashboard:
        live: list[Resources] = [*dashboard.nodes()]
        return live, f"{dashboard.url}: {len(live)} live nodes; name the cluster's file in cluster.grows_to if it grows"
    import torch

    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    here = {"CPU": float(local_cpus(cluster)), "GPU": float(torch.cuda.device_count()), "memory": memory}
    return [{**here, **own_roles(cluster)}], "this machine"


def _size(config: RunConfig, notes: list[str]) -> DataSize | None:
    """Counted in the prepared set, or estimated from the log."""
    from components.data.prepared import PreparedSet

    prepared = config.folder / "prepare"
    if (prepared / MANIFEST_FILE).is_file():
        found = PreparedSet(prepared).manifest
        return DataSize(int(found["interactions"]), int(found["users"]), int(found["num_items"]), exact=True)
    try:
        rows = estimate_rows(open_log(config.data, config.input))
    except (DataError, OSError) as error:
        notes.append(f"the log cannot be read from here, so time and memory are unknown: {error}")
        return None
    notes.append("users and items are assumed (one per 20 interactions) until the log is prepared")
    return DataSize.of_rows(rows)


def _groups(nodes: list[Node]) -> Iterator[tuple[str, list[Node]]]:
    """Nodes of the graph that ask for the same: a stage, a teacher, a student with all its seeds."""
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        alone = node.stage in ("teach", "pretrain", "distill")
        groups.setdefault(node.name.split(SEED_MARK)[0] if alone else node.stage, []).append(node)
    yield from groups.items()


class Planner:
    """Makes asks.

    Args:
        config: of the run.
        nodes: that count.
        size: of the data.
    """

    def __init__(self, config: RunConfig, nodes: list[Resources], size: DataSize | None) -> None:
        self.config, self.nodes, self.size = config, nodes, size
        self.measured = recorded_times(config.folder)
        self.ranked = sum(node.stage in ("teach", "distill") for node in build_graph(config))

    def ask(self, work: str, members: list[Node]) -> Ask:
        """What `members`, alike, ask for."""
        stage, cluster = members[0].stage, self._cluster(members[0])
        if stage not in STAGE_ROLES:
            return self._timed(Ask(work, len(members), DRIVER, 1, 0, 0, {}, 1, 1), members)
        gpus_there = total(eligible(self.nodes, cluster.placement.of(STAGE_ROLES[stage])), "GPU")
        gpu = use_gpu(cluster, gpus_there) and stage not in ("prepare", "evaluate")
        role: Role = "teachers" if stage == "features" and gpu else STAGE_ROLES[stage]
        custom = cluster.placement.of(role)
        trains = stage in ("pretrain", "teach", "search", "distill", "annotate")
        workers = cluster.num_workers if stage in ("pretrain", "teach", "distill") else 1
        ask = Ask(
            work,
            len(members),
            role,
            workers,
            cpus=cluster.cpus_per_worker if trains else float(not gpu),
            gpus=(cluster.gpus_per_worker if trains else 1.0) if gpu else 0.0,
            custom=custom,
            places=0,
            at_once=parallel_limit(stage, cluster) or len(members),
        )
        ask = replace(ask, places=self._places(ask))
        return self._checked(self._timed(ask, members), cluster, trains)

    def _cluster(self, node: Node) -> ClusterConfig:
        return self.config.cluster_of(node.suffix) if node.stage in ("teach", "pretrain") else self.config.cluster

    def _places(self, ask: Ask) -> int:
        """Processes that fit at once, node by node."""
        found = 0
        for node in eligible(self.nodes, ask.custom):
            fits = [int(node.get(name, 0.0) / need) for name, need in (("CPU", ask.cpus), ("GPU", ask.gpus)) if need]
            found += min(fits, default=0)
        return found

    def _checked(self, ask: Ask, cluster: ClusterConfig, trains: bool) -> Ask:
        """The ask with what makes it impossible."""
        section = f"teachers.{ask.work.partition('/')[2]}.resources" if ask.role == "teachers" else "cluster"
        try:
            if trains:
                role: Role = "teachers" if ask.role == "teachers" else "students"
                check_resources(cluster, self.nodes, section if "/" in ask.work else "cluster", role)
            else:
                check_data_role(cluster, self.nodes)
        except ResourceError as error:
            return replace(ask, problem=f"{ask.work}: {error}")
        largest = max((node.get("memory", 0.0) for node in eligible(self.nodes, ask.custom)), default=0.0)
        if ask.bytes and largest and ask.bytes > largest:
            held = f"{ask.work}: one process holds at least {ask.bytes / GIB:.1f} GiB"
            text = f"{held}, the largest node of role {ask.role} has"
            return replace(
                ask, problem=f"{text} {largest / GIB:.1f} GiB; take larger nodes, a smaller dim, or compression"
            )
        return ask

    def _timed(self, ask: Ask, members: list[Node]) -> Ask:
        """The ask with time and memory, measured before or estimated."""
        cost = self._cost(ask, members[0]) if self.size else Cost(None, None)
        waves = -(-ask.nodes // max(1, min(ask.at_once, ask.places // ask.workers or 1)))
        seconds = None if cost.seconds is None else cost.seconds * waves
        known = [
            self.measured[node.name]["seconds"] for node in members if "seconds" in self.measured.get(node.name, {})
        ]
        if len(known) == len(members):
            return replace(ask, seconds=sum(known) * waves / len(members), basis="measured", bytes=cost.bytes)
        return replace(ask, seconds=seconds, bytes=cost.bytes)

    def _cost(self, ask: Ask, node: Node) -> Cost:
        config, size = self.config, self.size
        assert size is not None
        power = Power(ask.cpus * ask.workers, ask.gpus * ask.workers)
        all_places = Power(ask.cpus * ask.places, ask.gpus * ask.places)
        if ask.work == "prepare":
            return estimate.preparation(size, config.prepare.fast_path_rows)
        if ask.work == "features":
            return estimate.encoding(size, all_places)
        if ask.work == "annotate":
            return estimate.annotation(size, self._widths(), power)
        if ask.work == "evaluate":
            return estimate.ranking(size, self.ranked, ask.places)
        if node.stage in ("teach", "pretrain"):
            teacher = config.teachers[node.suffix]
            trained = teacher.training if node.stage == "teach" else config.pretraining_of(node.suffix)
            return estimate.training(size, teacher.arguments, trained, power)
        if node.stage == "search" and config.search:
            one = estimate.training(size, arguments_of(config.student), config.training, power, self._widths())
            waves = config.search.trials / max(1, min(ask.places, config.search.max_parallel or ask.places))
            return Cost(one.seconds and one.seconds * waves, one.bytes)
        if node.stage == "distill":
            return self._student_cost(node, size, power)
        return Cost(estimate.START_SECONDS, estimate.PROCESS_BYTES)

    def _student_cost(self, node: Node, size: DataSize, power: Power) -> Cost:
        name = node.suffix.split(SEED_MARK)[0]
        variant = next((one for one in self.config.students() if one.name == name), None)
        student = variant.student if variant else self.config.student
        if "training" in node.part and "epochs" not in node.part["training"]:  # it counts
            return Cost(estimate.START_SECONDS, estimate.PROCESS_BYTES + size.rows * 2 * estimate.ID)
        states = self._widths() if variant and variant.distillation else 0
        return estimate.training(size, arguments_of(student), self.config.training, power, states)

    def _widths(self) -> int:
        """Numbers that all teachers together leave per position."""
        taught = [self.config.teachers[name].arguments for name in self.config.taught_by()]
        return sum(int(arguments.get("dim") or 0) for arguments in taught)


def arguments_of(student: ModelChoice) -> dict[str, Any]:
    """A student's arguments, those that the configuration leaves out as its kind has them."""
    return STUDENTS[student.kind].config.model_validate(student.arguments).model_dump()
