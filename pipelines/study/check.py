"""What pydantic cannot see of the section `study`: names of registries, and overrides of other sections.

It looks at the plain data of the file, as `pipelines.load_config` does, so that every mistake gets its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from components.distillation.config import DistillationConfig
from components.errors import UnknownNameError, nearest
from components.students import STUDENTS
from components.training.config import TrainingConfig
from pipelines.config import COUNTING
from pipelines.config_errors import KeyPath, unknown_key, validation_problems
from pipelines.study.config import StudentConfig

Found = Iterator[tuple[KeyPath, str]]
OWN_KEYS = frozenset(StudentConfig.model_fields)


def study_problems(data: Mapping[str, Any]) -> Found:
    """(key path, message) of everything that is wrong.

    Args:
        data: the whole configuration as plain values.
    """
    section = data.get("study")
    if not isinstance(section, dict):
        return
    seeds = section.get("seeds")
    if isinstance(seeds, list) and len({str(seed) for seed in seeds}) != len(seeds):
        yield ("study", "seeds"), f"a seed is there twice: {seeds}"
    students = _students_of(section)
    for name, student in students.items():
        yield from _wrong_student(student, data, ("study", "students", name))
    for name, student in _students_of(section.get("cprec")).items():
        path = ("study", "cprec", "students", name)
        if student.get("distillation"):
            yield (*path, "distillation"), "the study of CpRec has no teachers; remove it"
        yield from _wrong_student({**student, "distilled": False}, data, path)
    yield from _wrong_baselines(section.get("baselines"), students)
    yield from _wrong_dims(section.get("sweeps"), data)


def _students_of(section: Any) -> dict[str, dict[str, Any]]:
    """Students of a section that are sections; of others the validation of the whole says what is wrong."""
    found = section.get("students") if isinstance(section, dict) else None
    return {name: one for name, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def _wrong_student(student: dict[str, Any], data: Mapping[str, Any], path: KeyPath) -> Found:
    kind = student.get("kind")
    if not isinstance(kind, str):
        return  # the validation of the whole says so
    if kind not in STUDENTS:
        yield (*path, "kind"), str(UnknownNameError("student", kind, STUDENTS))
        return
    if kind in COUNTING and student.get("distilled", True) is True:
        yield (*path, "kind"), f"{kind} only counts and cannot be distilled; set `distilled: false`, or remove it"
    given = {key: value for key, value in student.items() if key not in OWN_KEYS}
    yield from _wrong_arguments(STUDENTS[kind].config, given, path)
    for section, model in (("training", TrainingConfig), ("distillation", DistillationConfig)):
        changes = student.get(section)
        if isinstance(changes, dict):
            yield from _wrong_changes(changes, data.get(section), model, (*path, section))
    chosen = (student.get("distillation") or {}) if isinstance(student.get("distillation"), dict) else {}
    teachers = data.get("teachers") if isinstance(data.get("teachers"), dict) else {}
    for index, teacher in enumerate(chosen.get("teachers") or ()):
        if teacher not in (teachers or {}):
            message = str(UnknownNameError("teacher of this run", str(teacher), teachers or {}))
            yield (*path, "distillation", "teachers", index), message


def _wrong_arguments(model: type[BaseModel], given: dict[str, Any], path: KeyPath) -> Found:
    try:
        model.model_validate(given)
    except ValidationError as error:
        for place, message in validation_problems(error, model, given, path):
            if message.startswith("unknown key") and len(place) == len(path) + 1:  # else it names its own neighbors
                message = unknown_key(str(place[-1]), sorted({*OWN_KEYS, *model.model_fields}))
            yield place, message


def _wrong_changes(changes: dict[str, Any], base: Any, model: type[BaseModel], path: KeyPath) -> Found:
    """What is wrong with keys that override a section; mistakes of the section itself are told by others."""
    merged = {**(base if isinstance(base, dict) else {}), **changes}
    try:
        model.model_validate(merged)
    except ValidationError as error:
        for place, message in validation_problems(error, model, merged):
            if place and place[0] in changes:
                yield (*path, *place), message


def _wrong_baselines(baselines: Any, students: Mapping[str, Any]) -> Found:
    known = [*STUDENTS, *(name for name in students if name not in STUDENTS)]
    for index, name in enumerate(baselines if isinstance(baselines, list) else ()):
        if name not in known:
            message = f"unknown baseline {name!r}; known: {', '.join(known)}{nearest(str(name), known)}"
            yield ("study", "baselines", index), message


def _wrong_dims(sweeps: Any, data: Mapping[str, Any]) -> Found:
    dims = sweeps.get("dim") if isinstance(sweeps, dict) else None
    student = data.get("student") if isinstance(data.get("student"), dict) else {"kind": "sasrec"}
    kind = student.get("kind") if student else None
    if not isinstance(dims, list) or not isinstance(kind, str) or kind not in STUDENTS:
        return
    fields = STUDENTS[kind].config.model_fields
    if "num_heads" not in fields:
        return
    heads = (student or {}).get("num_heads", fields["num_heads"].default)
    for index, dim in enumerate(dims):
        if isinstance(dim, int) and isinstance(heads, int) and heads > 0 and dim % heads:
            yield ("study", "sweeps", "dim", index), f"expected a multiple of student.num_heads ({heads}), got {dim}"
