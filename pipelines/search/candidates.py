"""From drawn values to a student, and what it weighs before it is trained: pure functions."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Final

from pydantic import ValidationError

from components.distillation.config import DistillationConfig
from components.errors import ConfigError
from components.model import Catalog
from components.students import STUDENTS
from components.training.config import TrainingConfig
from pipelines.cache import canonical_json
from pipelines.config import RunConfig
from pipelines.footprints import measure_student
from pipelines.graph import HOW
from pipelines.search.config import SearchConfig
from pipelines.stages import STAGES
from pipelines.study.plan import Setting
from tune_spaces import Space

ALL_AT_ONCE: Final = 300  # students of a space that are weighed one by one to find the smallest
ROUNDS: Final = 4  # else key after key, so often, from the first student that can be built
DRAWN: Final = 500  # students that are drawn to find that one
COMPRESSION: Final = "student.compression"
PRECISIONS: Final = frozenset({f"{COMPRESSION}.item_precision", f"{COMPRESSION}.network_precision"})
CODE_STAGES: Final = ("search", "distill")  # whose code decides what a training gives
Values = Mapping[str, Any]  # by key of the configuration


@dataclass(frozen=True)
class Weight:
    """What a student weighs.

    Attributes:
        parameters: their number.
        bytes: of its stored tensors.
    """

    parameters: int
    bytes: int

    def excess(self, budget: SearchConfig) -> float:
        """How far it is above the budgets known before training: 1 means twice as much; 0 or less fits."""
        limits = ((self.parameters, budget.max_parameters), (self.bytes, budget.max_bytes))
        return max((value / limit - 1 for value, limit in limits if limit is not None), default=0.0)


def decoded(space: Space, drawn: Values) -> dict[str, Any]:
    """Values of the keys for what Tune drew."""
    return {key: domain.value(drawn[key]) for key, domain in space.items()}


def encoded(space: Space, values: Values) -> dict[str, Any] | None:
    """What Tune would have drawn for values of all keys; None where they are none of this space."""
    if values.keys() != space.keys():
        return None
    try:
        return {key: domain.drawn(values[key]) for key, domain in space.items()}
    except ValueError:
        return None


def setting_of(config: RunConfig, values: Values) -> Setting:
    """The run's student with the drawn values in place of its own.

    A key below one that was chosen to be null, such as ``student.compression.factor`` below ``student.compression``,
    has no effect.

    Raises:
        ConfigError: the values contradict each other.
    """
    student, kind = dict(config.student.arguments), config.student.kind
    values = _precisions_alone(config, values)
    distillation = config.distillation if config.teachers else None
    sections: dict[str, Any] = {
        "student": student,
        "training": config.training.model_dump(mode="json"),
        "distillation": distillation.model_dump(mode="json") if distillation else None,
    }
    for key in sorted(values, key=lambda name: name.count(".")):
        above = [key[:place] for place, letter in enumerate(key) if letter == "."]
        if not any(name in values and values[name] is None for name in above):
            _put(sections, key.split("."), values[key])
    try:
        arguments = STUDENTS[kind].config.model_validate(sections["student"]).model_dump(mode="json")
        training = TrainingConfig.model_validate(sections["training"])
        taught = sections["distillation"]
        return Setting(kind, arguments, training, DistillationConfig.model_validate(taught) if taught else None)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        raise ConfigError(f"{place}: {detail['msg']}" if place else str(detail["msg"])) from error


def _precisions_alone(config: RunConfig, values: Values) -> Values:
    """Where a whole student is searched for its precision alone it stays whole, and does not become CpRec's default."""
    searched = {key for key in values if key == COMPRESSION or key.startswith(f"{COMPRESSION}.")}
    if config.student.arguments.get("compression") is not None or not searched or not searched <= PRECISIONS:
        return values
    whole = {"input": "full", "output": "tied"}
    if all(values[key] == "fp32" for key in searched):
        return {key: value for key, value in values.items() if key not in searched} | {COMPRESSION: None}
    return {COMPRESSION: whole, **values}


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree[part] = dict(tree.get(part) or {})
        tree = tree[part]
    tree[path[-1]] = value


def setting_key(setting: Setting, seed: int, more: Mapping[str, Any]) -> str:
    """sha256 of all that decides what training a setting gives, within one search."""
    identity = {
        "kind": setting.kind,
        "arguments": setting.arguments,
        "training": setting.training.model_dump(mode="json", exclude=HOW["training"]),
        "distillation": setting.distillation.model_dump(mode="json") if setting.distillation else None,
        "seed": seed,
        "code_versions": [STAGES[stage].code_version for stage in CODE_STAGES],
        **more,
    }
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


class Scale:
    """Weighs students of one catalog; equal ones once.

    Args:
        catalog: what they rank.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, Weight] = {}

    def weigh(self, setting: Setting) -> Weight:
        """What it weighs.

        Raises:
            ConfigError: it cannot be built for this catalog.
        """
        key = canonical_json({"kind": setting.kind, "arguments": setting.arguments})
        if key not in self._known:
            parameters, stored = measure_student(self._catalog, setting.kind, dict(setting.arguments))
            self._known[key] = Weight(parameters["total"], stored["total"])
        return self._known[key]


def smallest(
    space: Space, weigh: Callable[[dict[str, Any]], Weight | None], size: Callable[[Weight], int]
) -> tuple[dict[str, Any], Weight] | None:
    """The lightest student of a space: of all where they are few, else one key after the other.

    Args:
        space: keys that have nothing to do with size may be among them.
        weigh: of the values of all keys; None where they contradict each other.
        size: what is to be small.
    """
    keys = [key for key in space if key.startswith("student.")]
    fixed = {key: domain.corners()[0] for key, domain in space.items()}
    corners = {key: space[key].corners() for key in keys}
    best: tuple[dict[str, Any], Weight] | None = None

    def tried(values: dict[str, Any]) -> None:
        nonlocal best
        weight = weigh(values)
        if weight is not None and (best is None or size(weight) < size(best[1])):
            best = (values, weight)

    if prod(map(len, corners.values())) <= ALL_AT_ONCE:
        for chosen in product(*corners.values()):
            tried(fixed | dict(zip(keys, chosen, strict=True)))
        return best
    generator = random.Random(0)  # noqa: S311 - the same draws every time
    for _ in range(DRAWN):
        if best is not None:
            break
        tried(fixed | {key: generator.choice(values) for key, values in corners.items()})
    for _ in range(ROUNDS if best else 0):
        for key in keys:
            for value in corners[key]:
                tried((best[0] if best else fixed) | {key: value})
    return best


def check_budget(config: RunConfig, search: SearchConfig, catalog: Catalog) -> None:
    """Refuse budgets that no student of the space meets.

    Raises:
        ConfigError: which budget, and what the smallest student of the space weighs; or that no student can be built.
    """
    scale, problems = Scale(catalog), list[str]()

    def weigh(values: dict[str, Any]) -> Weight | None:
        try:
            return scale.weigh(setting_of(config, values))
        except ConfigError as error:
            problems.append(str(error))
            return None

    space = search.whole_space()
    limits: dict[str, tuple[int | None, Callable[[Weight], int]]] = {
        "max_bytes": (search.max_bytes, lambda weight: weight.bytes),
        "max_parameters": (search.max_parameters, lambda weight: weight.parameters),
    }
    for name, (limit, size) in limits.items():
        found = smallest(space, weigh, size)
        if found is None:
            raise ConfigError(f"search: no student of the space can be built for this catalog: {problems[0]}")
        values, weight = found
        if limit is not None and size(weight) > limit:
            student = ", ".join(f"{key}: {value}" for key, value in values.items() if key.startswith("student."))
            raise ConfigError(
                f"search.{name}: {limit:,} cannot be met: the smallest of the space takes {size(weight):,} "
                f"({student}); raise the budget, or widen search.spaces (quantization, width) or search.space"
            )
