"""The Ray session of a run: started on this machine, or joined; quiet, and refused early where it can never suffice."""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any, Final

from components.errors import ResourceError

if TYPE_CHECKING:
    from pipelines.config import ClusterConfig

PACKAGES: Final = ("components", "pipelines", "serve", "tune_spaces")
MIN_CPUS: Final = 4  # logical CPUs; with fewer, training workers and the tasks that feed them wait for each other
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


def check_resources(cluster: ClusterConfig, nodes: Sequence[Mapping[str, float]], section: str = "cluster") -> None:
    """Refuse a request that the cluster can never satisfy, and one that would wait for itself forever.

    Args:
        cluster: what is asked for.
        nodes: the resources of every live node, such as ``{"CPU": 4.0, "GPU": 1.0}``.
        section: where the configuration asks for it.

    Raises:
        ResourceError: what was asked for, what exists, and what to change.
    """
    cpus = [node.get("CPU", 0.0) for node in nodes]
    asked = f"{section}.num_workers={cluster.num_workers} with {section}.cpus_per_worker={cluster.cpus_per_worker:g}"
    exists = f"the cluster has {sum(cpus):g} CPUs on {len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    if cluster.cpus_per_worker > max(cpus, default=0.0):
        raise ResourceError(f"{asked}: {exists}, the largest node {max(cpus, default=0.0):g}; lower cpus_per_worker")
    needed = cluster.num_workers * cluster.cpus_per_worker
    if needed + DATA_CPUS > sum(cpus):
        raise ResourceError(
            f"{asked} takes {needed:g} CPUs and {DATA_CPUS:g} more must stay free for Ray Data, but {exists}; lower "
            f"{section}.num_workers or {section}.cpus_per_worker, or raise cluster.num_cpus (logical CPUs of this "
            "machine)"
        )
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    wanted = cluster.num_workers * cluster.gpus_per_worker
    if cluster.use_gpu is True and gpus < wanted:
        raise ResourceError(
            f"{section}.use_gpu=true with {section}.num_workers={cluster.num_workers} takes {wanted:g} GPUs, "
            f"but the cluster has {gpus:g}; lower {section}.num_workers or set {section}.use_gpu=auto"
        )


def use_gpu(cluster: ClusterConfig, gpus: float) -> bool:
    """Whether training workers use GPUs, where the cluster has `gpus`."""
    if cluster.use_gpu == "auto":
        return gpus >= cluster.num_workers * cluster.gpus_per_worker
    return bool(cluster.use_gpu)


def training_gpu(cluster: ClusterConfig) -> bool:
    """Whether training workers use GPUs in the session that is open now."""
    import ray

    resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return use_gpu(cluster, resources.get("GPU", 0.0))


def local_cpus(cluster: ClusterConfig) -> int:
    """Logical CPUs of a session on this machine."""
    return cluster.num_cpus or max(MIN_CPUS, os.cpu_count() or 1)


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
    requests = {"cluster": cluster, **(others or {})}
    address = cluster_address(cluster, os.environ)
    if address is None:
        check(requests, [{"CPU": local_cpus(cluster), "GPU": math.inf}])  # before Ray takes its seconds
        prepare_environment(os.environ)
    import ray

    if ray.is_initialized():
        check(requests, _node_resources(ray))
        yield
        return
    folder = None if address else Path(tempfile.mkdtemp(prefix="dr", dir=cluster.temp_dir))
    try:
        _connect(ray, cluster, address, folder)
        check(requests, _node_resources(ray))
        _quiet(ray)
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def check(requests: Mapping[str, ClusterConfig], nodes: Sequence[Mapping[str, float]]) -> None:
    """`check_resources` for every request, by section."""
    for section, request in requests.items():
        check_resources(request, nodes, section)


def _connect(ray: Any, cluster: ClusterConfig, address: str | None, folder: Path | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        start = partial(
            ray.init,
            num_cpus=local_cpus(cluster),
            object_store_memory=cluster.object_store_mb * 2**20,
            include_dashboard=False,
            _temp_dir=str(folder),
            **quiet,
        )
        start_ray(start, ray.shutdown)
        return
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # the job brought the code and its environment
    environment = None if in_job else {"py_modules": _package_folders(), "env_vars": dict(WORKER_ENVIRONMENT)}
    try:
        ray.init(address=address, runtime_env=environment, **quiet)
    except (ConnectionError, ValueError) as error:
        raise ResourceError(
            f"cannot join the Ray cluster at {address!r}: {error}; check cluster.address and RAY_ADDRESS, or unset "
            "both to start Ray on this machine"
        ) from error


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


def _node_resources(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _quiet(ray: Any) -> None:
    """Progress and patience are ours; Ray's bars and notices go nowhere, its errors still arrive as exceptions."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # half an hour is not long for a language model or a queue
    for name in ("ray", "ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
