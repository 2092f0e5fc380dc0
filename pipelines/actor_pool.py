"""How many Ray Data actors encode, and what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
import ray.data


def available(kind: str) -> float:
    """How much of a resource ("CPU", "GPU") the cluster has."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get(kind, 0.0)


def pool_options(
    device: str, blocks: int, blocks_per_actor: int, custom: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Options of ``map_batches`` for a pool of actors on `device` that share `blocks` blocks of work.

    Args:
        device: "cpu" or "cuda".
        blocks: pieces of work.
        blocks_per_actor: fewer are not worth one more actor.
        custom: resources that say where actors run.
    """
    gpu = device == "cuda"
    slots = int(available("GPU" if gpu else "CPU"))
    if not gpu:
        slots -= 1  # Ray Data's own tasks need a place too
    actors = max(1, min(slots, blocks // blocks_per_actor))
    return {
        "compute": ray.data.ActorPoolStrategy(size=actors),
        "num_cpus": 0 if gpu else 1,
        "num_gpus": 1 if gpu else 0,
        "resources": dict(custom or {}),
    }
