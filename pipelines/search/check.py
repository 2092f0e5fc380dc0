"""What pydantic cannot see of the section `search`: names of spaces, and keys that no student has.

It looks at the plain data of the file, as `pipelines.load_config` does, so that every mistake gets its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from components.distillation.config import DistillationConfig
from components.errors import UnknownNameError, nearest
from components.students import STUDENTS
from components.training.config import TrainingConfig
from pipelines.config import COUNTING, DEFAULT_STUDENT
from pipelines.config_errors import KeyPath, unknown_key
from tune_spaces import SPACES

Found = Iterator[tuple[KeyPath, str]]


def search_problems(data: Mapping[str, Any]) -> Found:
    """(key path, message) of everything that is wrong.

    Args:
        data: the whole configuration as plain values.
    """
    section = data.get("search")
    if not isinstance(section, dict):
        return
    student = data.get("student")
    kind = student.get("kind") if isinstance(student, dict) else DEFAULT_STUDENT
    if kind in COUNTING:
        yield ("search",), f"{kind} only counts and has nothing to search; choose another student"
    if not isinstance(kind, str) or kind not in STUDENTS:
        return  # others say so
    taught = data.get("distillation") is not None and bool(data.get("teachers"))
    names, keys = section.get("spaces", ["compression"]), section.get("space")
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if name not in SPACES:
            yield ("search", "spaces", index), str(UnknownNameError("search space", str(name), SPACES))
            continue
        for key in SPACES[name]:
            if problem := key_problem(key, kind, taught):
                yield ("search", "spaces", index), f"{name} searches {key}: {problem}"
    for key, domain in (keys if isinstance(keys, dict) else {}).items():
        problem = key_problem(str(key), kind, taught) or _range_problem(str(key), kind, domain)
        if problem:
            yield ("search", "space", key), problem
    if names == [] and not keys:
        yield ("search",), f"nothing is searched: name spaces ({', '.join(SPACES)}), or give keys under `space`"


def key_problem(key: str, kind: str, taught: bool) -> str:
    """Why a key cannot be searched; "" where it can.

    Args:
        key: such as ``student.compression.factor``.
        kind: of the student.
        taught: whether the run distils.
    """
    section, *path = key.split(".")
    models = _models(kind)
    if section not in models or not path:
        return f"expected a key of student, training or distillation{nearest(section, models)}"
    if section == "distillation" and not taught:
        return "the run has no teachers or no section distillation"
    model: type[BaseModel] | None = models[section]
    for name in path:
        if model is None or name not in model.model_fields:
            return unknown_key(name, sorted(model.model_fields) if model else [])
        model = _model_of(model, name)
    return ""


def _range_problem(key: str, kind: str, domain: Any) -> str:
    """Why a key whose value is a whole number cannot be drawn from this range; "" where it can."""
    section, *path = key.split(".")
    model: type[BaseModel] | None = _models(kind)[section]
    for name in path[:-1]:
        model = _model_of(model, name) if model else None
    annotation = model.model_fields[path[-1]].annotation if model else None
    numbers = {annotation, *getattr(annotation, "__args__", ())}
    if (
        isinstance(domain, dict)
        and int in numbers
        and float not in numbers
        and {"uniform", "log_uniform"} & domain.keys()
    ):
        return "takes whole numbers; use integers: [lowest, highest], or a list"
    return ""


def _models(kind: str) -> dict[str, type[BaseModel]]:
    return {"student": STUDENTS[kind].config, "training": TrainingConfig, "distillation": DistillationConfig}


def _model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The section that a field holds, None where it holds a value."""
    annotation = model.model_fields[name].annotation
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)
