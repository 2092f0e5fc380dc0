"""What a cluster may grow to: the node types of a Ray cluster launcher's file or of a KubeRay manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from components.errors import ConfigError

KEY: Final = "cluster.grows_to"
CLUSTER_KINDS: Final = ("RayCluster", "RayJob", "RayService")
UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{prefix}i": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)
}
GPU: Final = "nvidia.com/gpu"


@dataclass(frozen=True)
class NodeType:
    """One kind of node.

    Attributes:
        name: in the file.
        resources: of one node, as Ray counts them: CPUs, GPUs, ``memory`` in bytes, custom ones.
        count: how many there may be at most, the head among them.
    """

    name: str
    resources: Mapping[str, float]
    count: int

    def nodes(self) -> list[dict[str, float]]:
        """Resources of every node that there may be."""
        return [dict(self.resources)] * self.count


def read_node_types(file: Path) -> list[NodeType]:
    """The node types of `file`; types of which there may be none are left out.

    Raises:
        ConfigError: it cannot be read, or describes no cluster.
    """
    try:
        documents = [part for part in yaml.safe_load_all(file.read_text(encoding="utf-8")) if isinstance(part, dict)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{KEY}: {file} cannot be read: {' '.join(str(error).split())}") from error
    found: list[NodeType] = []
    try:
        for document in documents:
            found += _launcher(document) if "available_node_types" in document else _kuberay(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{KEY}: {file} describes no cluster as expected: {error!r}") from error
    if not found:
        raise ConfigError(
            f"{KEY}: {file} has neither available_node_types (Ray's cluster launcher) nor is it a KubeRay "
            f"{', '.join(CLUSTER_KINDS)}"
        )
    return [kind for kind in found if kind.count > 0]


@lru_cache
def growth(file: str | None) -> tuple[NodeType, ...]:
    """The node types of the file that `cluster.grows_to` names; empty where it names none. Read once a process."""
    return tuple(read_node_types(Path(file))) if file else ()


def _launcher(document: Mapping[str, Any]) -> Iterator[NodeType]:
    limit = int(document.get("max_workers", 2))  # 2 is Ray's own default
    head = document.get("head_node_type")
    for name, kind in document["available_node_types"].items():
        resources = {key: float(amount) for key, amount in (kind.get("resources") or {}).items()}
        count = 1 if name == head else min(int(kind.get("max_workers", 0)), limit)
        yield NodeType(name, resources, count)


def _kuberay(document: Mapping[str, Any]) -> Iterator[NodeType]:
    if document.get("kind") not in CLUSTER_KINDS:
        return
    spec = document["spec"]
    cluster = spec if document["kind"] == "RayCluster" else spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    yield NodeType("head", _group_resources(cluster["headGroupSpec"]), 1)
    for group in cluster.get("workerGroupSpecs", []):
        count = int(group.get("maxReplicas", group.get("replicas", 0))) * int(group.get("numOfHosts", 1))
        yield NodeType(group["groupName"], _group_resources(group), count)


def _group_resources(group: Mapping[str, Any]) -> dict[str, float]:
    """Limits of the first container, which is Ray's, and what `rayStartParams` says instead of them."""
    container = group["template"]["spec"]["containers"][0]
    limits = {key: quantity(value) for key, value in container["resources"]["limits"].items()}
    start = group.get("rayStartParams") or {}
    found = {
        "CPU": float(start.get("num-cpus", limits.get("cpu", 0.0))),
        "GPU": float(start.get("num-gpus", limits.get(GPU, 0.0))),
        "memory": limits.get("memory", 0.0),
    }
    custom = yaml.safe_load(str(start.get("resources", "{}")).strip("\"'").replace('\\"', '"')) or {}
    return found | {key: float(amount) for key, amount in custom.items()}


def quantity(text: str | float) -> float:
    """A Kubernetes quantity as a number.

    >>> quantity("500m"), quantity("16Gi"), quantity(4)
    (0.5, 17179869184.0, 4.0)
    """
    match = re.fullmatch(r"([0-9.]+)(m|[kMGT]|[KMGT]i)?", str(text))
    if not match:
        raise ValueError(f"{text!r} is no quantity such as 500m or 16Gi")
    if match[2] == "m":
        return float(match[1]) / 1000
    return float(match[1]) * float(UNITS[match[2] or ""])
