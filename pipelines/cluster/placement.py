"""Roles: which nodes of a cluster a stage runs on. A role asks for a sliver of a resource that its nodes offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from pipelines.model_choice import Section

Role = Literal["data", "teachers", "students"]
Resources = Mapping[str, float]
Custom = dict[str, Annotated[float, Field(gt=0)]]
OWN: Final = ("CPU", "GPU", "memory", "object_store_memory")  # asked for by other keys
STAGE_ROLES: Final[Mapping[str, Role]] = {
    "prepare": "data",
    "features": "data",
    "evaluate": "data",
    "pretrain": "teachers",
    "teach": "teachers",
    "annotate": "teachers",
    "search": "students",
    "distill": "students",
}


class PlacementConfig(Section):
    """Custom resources that every task of a role asks for; a role without any runs wherever there is a place.

    A node offers them by ``ray start --resources='{"teachers": 1000}'`` or in the file of its cluster; tasks ask for a
    sliver, such as 0.001, since they count nothing and only say where.

    Attributes:
        data: preparation, encoding on CPUs, evaluation.
        teachers: pre-training, teaching, annotation, encoding on GPUs.
        students: distillation, search, study.
    """

    data: Custom = Field(default={})
    teachers: Custom = Field(default={})
    students: Custom = Field(default={})

    @field_validator("data", "teachers", "students")
    @classmethod
    def _custom(cls, asked: dict[str, float]) -> dict[str, float]:
        if taken := sorted(set(asked) & set(OWN)):
            raise ValueError(
                f"{', '.join(taken)}: no custom resource; cluster.cpus_per_worker, gpus_per_worker and use_gpu ask "
                "for it"
            )
        return asked

    def of(self, role: Role) -> dict[str, float]:
        """What a task of `role` asks for."""
        asked: dict[str, float] = getattr(self, role)
        return dict(asked)


def eligible(nodes: Sequence[Resources], custom: Resources) -> list[Resources]:
    """The nodes that offer every custom resource.

    >>> eligible([{"CPU": 4.0}, {"CPU": 8.0, "teachers": 1000.0}], {"teachers": 0.001})
    [{'CPU': 8.0, 'teachers': 1000.0}]
    """
    return [node for node in nodes if all(node.get(name, 0.0) >= amount for name, amount in custom.items())]


def total(nodes: Sequence[Resources], name: str) -> float:
    """How much of a resource all nodes have together."""
    return sum(node.get(name, 0.0) for node in nodes)
