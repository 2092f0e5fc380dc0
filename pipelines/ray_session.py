"""The Ray session of a run: started on this machine, or joined; quiet, and refused early where it can never suffice."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from components.errors import ResourceError
from pipelines.cluster.in_job import JOB
from pipelines.cluster.node_types import growth
from pipelines.cluster.placement import OWN, Resources, Role, eligible, total

if TYPE_CHECKING:
    from pipelines.config import ClusterConfig

PACKAGES: Final = ("components", "pipelines", "serve", "tune_spaces")
MIN_CPUS: Final = 4  # logical CPUs; with fewer, training workers and the tasks that feed them wait for each other
RUN_SECTION: Final = "cluster"
PLENTY: Final = 1000.0  # of a custom resource: it says where, and counts nothing
STARTS: Final = 3  # attempts to start Ray on this machine
DATA_CPUS: Final = 1.0  # what Ray Data needs beside the training workers
WORKER_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",  # of 1024: products in bf16 keep memory for every shape that they met
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}


def check_resources(
    cluster: ClusterConfig, nodes: Sequence[Resources], section: str = "cluster", role: Role = "students"
) -> None:
    """Refuse a request that the cluster can never satisfy, and one that would wait for itself forever.

    Args:
        cluster: what is asked for.
        nodes: the resources of every node that is there or may come, such as ``{"CPU": 4.0, "GPU": 1.0}``.
        section: where the configuration asks for it.
        role: whose placement counts.

    Raises:
        ResourceError: what was asked for, what exists, and what to change.
    """
    fitting = eligible(nodes, cluster.placement.of(role))
    if nodes and not fitting:
        raise ResourceError(_no_place(cluster, nodes, role))
    cpus = [node.get("CPU", 0.0) for node in fitting]
    where = f" of cluster.placement.{role}" if cluster.placement.of(role) else ""
    asked = f"{section}.num_workers={cluster.num_workers} with {section}.cpus_per_worker={cluster.cpus_per_worker:g}"
    exists = f"the cluster has {sum(cpus):g} CPUs on {len(fitting)} node{'s' if len(fitting) != 1 else ''}{where}"
    if cluster.cpus_per_worker > max(cpus, default=0.0):
        raise ResourceError(f"{asked}: {exists}, the largest node {max(cpus, default=0.0):g}; lower cpus_per_worker")
    needed = cluster.num_workers * cluster.cpus_per_worker
    if needed > sum(cpus) or needed + DATA_CPUS > total(nodes, "CPU"):
        raise ResourceError(
            f"{asked} takes {needed:g} CPUs and {DATA_CPUS:g} more must stay free for Ray Data, but {exists}; lower "
            f"{section}.num_workers or {section}.cpus_per_worker, or raise cluster.num_cpus (logical CPUs of this "
            "machine)"
        )
    gpus = total(fitting, "GPU")
    wanted = cluster.num_workers * cluster.gpus_per_worker
    if cluster.use_gpu is True and gpus < wanted:
        raise ResourceError(
            f"{section}.use_gpu=true with {section}.num_workers={cluster.num_workers} takes {wanted:g} GPUs, "
            f"but the cluster has {gpus:g}{where}; lower {section}.num_workers or set {section}.use_gpu=auto"
        )


def check_data_role(cluster: ClusterConfig, nodes: Sequence[Resources]) -> None:
    """Refuse a placement of data work where no node offers it.

    Raises:
        ResourceError: what was asked for, and what exists.
    """
    if nodes and not eligible(nodes, {**cluster.placement.data, "CPU": DATA_CPUS}):
        raise ResourceError(_no_place(cluster, nodes, "data"))


def _no_place(cluster: ClusterConfig, nodes: Sequence[Resources], role: Role) -> str:
    asked = cluster.placement.of(role)
    offered = sorted({name for node in nodes for name in node if name not in OWN and "node:" not in name})
    example = json.dumps(dict.fromkeys(asked, 1000))
    return (
        f"cluster.placement.{role} asks for {asked}, which no node with a free CPU offers; the {len(nodes)} nodes "
        "offer "
        f"{', '.join(offered) or 'no custom resource'}; start nodes with `ray start --resources='{example}'`, name the "
        "file of the cluster in cluster.grows_to, or remove the placement"
    )


def use_gpu(cluster: ClusterConfig, gpus: float) -> bool:
    """Whether training workers use GPUs, where the cluster has `gpus`."""
    if cluster.use_gpu == "auto":
        return gpus >= cluster.num_workers * cluster.gpus_per_worker
    return bool(cluster.use_gpu)


def training_gpu(cluster: ClusterConfig, role: Role) -> bool:
    """Whether training workers of a role use GPUs in the session that is open now, or may grow."""
    import ray

    return use_gpu(cluster, total(eligible(offers(ray, cluster), cluster.placement.of(role)), "GPU"))


def offers(ray: Any, cluster: ClusterConfig) -> list[Resources]:
    """Resources of the live nodes, or of all that there may be where a file says so."""
    live: list[Resources] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return grown(cluster) or live


def grown(cluster: ClusterConfig) -> list[Resources]:
    """The nodes that the cluster may grow to, the live ones among them; empty where no file says so."""
    return [node for kind in growth(cluster.grows_to) for node in kind.nodes()]


def local_cpus(cluster: ClusterConfig) -> int:
    """Logical CPUs of a session on this machine."""
    return cluster.num_cpus or max(MIN_CPUS, os.cpu_count() or 1)


def own_roles(cluster: ClusterConfig) -> dict[str, float]:
    """The custom resources of all roles: a session on this machine has a place for each of them."""
    roles: tuple[Role, ...] = get_args(Role)
    return {name: PLENTY for role in roles for name in cluster.placement.of(role)}


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Set what every process of a local session must see; what the user set stays.

    One thread that sleeps while it waits: several workers share the cores. A secret token keeps other users of the
    machine out of the session, which would run their code.
    """
    for name, value in WORKER_ENVIRONMENT.items():
        environment.setdefault(name, value)
    if "RAY_AUTH_MODE" not in environment:
        environment["RAY_AUTH_MODE"] = "token"
        if "RAY_AUTH_TOKEN_PATH" not in environment:
            environment.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def cluster_address(cluster: ClusterConfig, environment: Mapping[str, str]) -> str | None:
    """The cluster to join; None starts one on this machine. Inside a submitted job Ray sets RAY_ADDRESS."""
    return cluster.address or environment.get("RAY_ADDRESS") or None


@contextmanager
def ray_session(cluster: ClusterConfig, others: Mapping[str, ClusterConfig] | None = None) -> Iterator[None]:
    """Hold a Ray session that fits the request; one that is already there is used and left running.

    Args:
        cluster: what the run asks for.
        others: further requests by the section of the configuration that makes them.

    Raises:
        ResourceError: the cluster can never give what was asked for, or cannot be reached.
    """
    requests = {RUN_SECTION: cluster, **(others or {})}
    address = cluster_address(cluster, os.environ)
    if address is None:
        check(
            requests, [{"CPU": local_cpus(cluster), "GPU": math.inf, **own_roles(cluster)}]
        )  # before Ray takes its seconds
        prepare_environment(os.environ)
    import ray

    if ray.is_initialized():
        check(requests, offers(ray, cluster))
        yield
        return
    folder = None if address else Path(tempfile.mkdtemp(prefix="dr", dir=cluster.temp_dir))
    try:
        _connect(ray, cluster, address, folder)
        check(requests, offers(ray, cluster))
        _quiet(ray)
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def check(requests: Mapping[str, ClusterConfig], nodes: Sequence[Resources]) -> None:
    """`check_resources` for every request by section: that of the run itself, and those of its teachers."""
    for section, request in requests.items():
        check_resources(request, nodes, section, "students" if section == RUN_SECTION else "teachers")
        check_data_role(request, nodes)


def _connect(ray: Any, cluster: ClusterConfig, address: str | None, folder: Path | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        start = partial(
            ray.init,
            num_cpus=local_cpus(cluster),
            resources=own_roles(cluster),
            object_store_memory=cluster.object_store_mb * 2**20,
            include_dashboard=False,
            _temp_dir=str(folder),
            **quiet,
        )
        start_ray(start, ray.shutdown)
        return
    try:
        ray.init(address=address, runtime_env=session_environment(os.environ), **quiet)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ResourceError(f"cannot join the Ray cluster at {address!r}: {why_not(error)}") from error


def session_environment(own: Mapping[str, str]) -> dict[str, Any]:
    """What workers of a cluster need; a job brought the code, and perhaps variables, which may not be set again."""
    if JOB not in own:
        return {"py_modules": _package_folders(), "env_vars": dict(WORKER_ENVIRONMENT)}
    brought = (json.loads(own[JOB]).get("runtime_env") or {}).get("env_vars") or {}
    return {"env_vars": {name: value for name, value in WORKER_ENVIRONMENT.items() if name not in brought}}


def why_not(error: BaseException) -> str:
    """What a person can do who cannot join a cluster."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return f"{text}; install the same Ray and Python here as there, or send the run as a job: distilrec submit"
    if "uthentication" in text or "token" in text.lower():
        return (
            f"{text}; put the cluster's token into a file and name it in RAY_AUTH_TOKEN_PATH, with RAY_AUTH_MODE=token"
        )
    return f"{text}; check cluster.address and RAY_ADDRESS, or unset both to start Ray on this machine"


def start_ray(start: Callable[[], object], undo: Callable[[], object]) -> None:
    """Start Ray on this machine. Two sessions that start in the same moment may take the same port: then once more.

    Raises:
        ResourceError: it does not start.
    """
    for left in reversed(range(STARTS)):
        try:
            start()
            return
        except Exception as error:
            if type(error) is not Exception and not isinstance(error, RuntimeError):  # Ray's time-outs are of no class
                raise
            undo()
            if not left:
                reason = str(error).splitlines()[0]
                raise ResourceError(
                    f"cannot start Ray on this machine: {reason}; wait until other runs have started, or set "
                    "cluster.temp_dir to a folder with free space and a short path, and run the same command again"
                ) from error


def _package_folders() -> list[str]:
    root = Path(__file__).resolve().parents[1]
    return [str(root / name) for name in PACKAGES]


def _quiet(ray: Any) -> None:
    """Progress and patience are ours; Ray's bars and notices go nowhere, its errors still arrive as exceptions."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # half an hour is not long for a language model or a queue
    for name in ("ray", "ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
