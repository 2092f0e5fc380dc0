"""Whether every node of a cluster can read and write where the run is kept: asked before anything runs."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import Any, Final

from components.errors import DistilrecError, StorageError
from pipelines.storage.exchange import Exchange
from pipelines.storage.remote import Remote

SECONDS: Final = 60.0  # a node that takes longer to start one process is sick
NEEDS_ONE_DISK: Final = ("search",)
ELSEWHERE: Final = "works on a disk of its own"  # no problem, but for some stages


def check_nodes(run: Path, stages: set[str]) -> None:
    """Let every live node write to the run's storage.

    Args:
        run: the driver's run folder.
        stages: that will run.

    Raises:
        StorageError: the nodes that cannot, why, and what to do.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    own = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if [node["NodeManagerAddress"] for node in nodes] == [own]:
        return  # the driver's own machine, and no other
    exchange, mark = Exchange.of(run), run / f".probe-{uuid.uuid4().hex}"
    mark.write_text(socket.gethostname(), encoding="utf-8")
    try:
        probe = ray.remote(num_cpus=0, max_retries=1)(probe_node)
        asked = {
            probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                mark, exchange
            ): node["NodeManagerAddress"]
            for node in nodes
        }
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS)
        problems = {asked[one]: problem for one in done if (problem := ray.get(one))}
        problems |= {asked[one]: f"did not answer within {SECONDS:g} seconds" for one in late}
    finally:
        mark.unlink(missing_ok=True)
    apart = sorted(address for address, problem in problems.items() if problem == ELSEWHERE)
    problems = {address: problem for address, problem in problems.items() if problem != ELSEWHERE}
    if apart and (bound := sorted(stages & set(NEEDS_ONE_DISK))):
        raise StorageError(
            f"stage {bound[0]} keeps its students in files that all nodes see at once, but {', '.join(apart)} share "
            "no disk "
            "with the driver; set output= to a shared folder for this run"
        )
    if problems:
        listed = "; ".join(f"{address}: {problem}" for address, problem in problems.items())
        raise StorageError(_remedy(run, exchange, listed))


def _remedy(run: Path, exchange: Exchange | None, listed: str) -> str:
    if exchange:
        return f"{exchange.uri}: {listed}"
    return (
        f"{run}: not every node can use it: {listed}; set output= to a folder that all nodes share and may write, "
        "such as "
        "/shared/runs, or to s3://BUCKET/runs or gs://BUCKET/runs"
    )


def probe_node(mark: Path, exchange: Exchange | None) -> str:
    """On a node: what keeps it from using the run's storage, ``""`` where nothing does."""
    if exchange is None or exchange.is_here:
        return _probe_folder(mark)
    name = f".probe/{uuid.uuid4().hex}"
    try:
        remote = Remote(exchange.uri)
        remote.write(name, b"probe")
        remote.delete(name)
    except DistilrecError as error:
        return str(error)
    return ELSEWHERE


def _probe_folder(mark: Path) -> str:
    own = mark.with_name(f"{mark.name}-{os.getpid()}")
    try:
        if not mark.is_file():
            return "does not see this folder of the driver's machine"
        own.write_text("probe", encoding="utf-8")
        own.unlink()
    except OSError as error:
        return f"cannot write: {error.strerror}"
    return ""
