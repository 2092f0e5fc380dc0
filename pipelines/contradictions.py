"""What no single section of a configuration can see: names that must exist elsewhere, sections that need each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from components.distillation.config import DistillationConfig
from components.errors import UnknownNameError, nearest
from components.features.pretrained import missing_folder
from components.schema import MANIFEST_FILE
from components.students import STUDENTS
from pipelines.config import COUNTING, DEFAULT_STUDENT, DISTILLED, PLAIN
from pipelines.config_errors import KeyPath, validation_problems
from pipelines.search.check import search_problems
from pipelines.stream.check import stream_problems
from pipelines.study.check import study_problems

READ_VECTORS: Final = ("unisrec", "unim2rec")  # teachers
READ_TEXTS: Final = ("recformer",)
Found = Iterator[tuple[KeyPath, str]]


def contradictions(data: Mapping[str, Any]) -> Found:
    """Every contradiction with the key that it is told at.

    It looks at the plain data and not at the validated object, so that it finds something even where that is wrong.
    """
    seeds = data.get("seeds")
    if isinstance(seeds, list) and len({str(seed) for seed in seeds}) != len(seeds):
        yield ("seeds",), f"a seed is there twice: {seeds}"
    if data.get("images") is not None and data.get("features") is None:
        yield ("images",), "needs the section `features` (of texts) beside it; `features: {}` takes its defaults"
    yield from stream_problems(data)
    yield from _missing_texts(data)
    yield from _missing_models(data)
    yield from _wrong_student(data)
    yield from _wrong_baselines(data)
    yield from _wrong_teachers(data)
    yield from _wrong_variants(data)
    yield from _wrong_geometry(data)
    yield from study_problems(data)
    yield from search_problems(data)


def _wrong_geometry(data: Mapping[str, Any]) -> Found:
    """Item geometry for a student whose items have no vectors of their own."""
    kind = mapping(data.get("student")).get("kind", DEFAULT_STUDENT)
    known = [name for name, spec in STUDENTS.items() if spec.item_embedding]
    if kind not in STUDENTS or kind in known:
        return
    sections: dict[KeyPath, Any] = {("distillation",): data.get("distillation")}
    sections |= {("variants", name): changes for name, changes in mapping(data.get("variants")).items()}
    for path, section in sections.items():
        if mapping(section).get("item_geometry"):
            message = f"the student {kind!r} has no item table that could follow the teachers'; these have: "
            yield (*path, "item_geometry"), f"{message}{', '.join(known)}; or set it to 0"


def _missing_texts(data: Mapping[str, Any]) -> Found:
    """Who reads texts needs a file of items; who reads their vectors, the section that makes them."""
    source = mapping(data.get("input"))
    pictured = data.get("images") is not None
    if data.get("features") is not None and source and not source.get("items") and not pictured:
        yield ("features",), "needs item texts; set input.items, and input.text_columns where they have unusual names"
    for name, teacher in mapping(data.get("teachers")).items():
        kind = mapping(teacher).get("kind")
        if kind in READ_VECTORS and data.get("features") is None:
            message = f"{kind!r} reads vectors of item texts; add the section `features`; `features: {{}}` is enough"
            yield ("teachers", name, "kind"), message
        elif kind in READ_TEXTS and source and not source.get("items"):
            yield ("teachers", name, "kind"), f"{kind!r} reads item texts; set input.items"


def _missing_models(data: Mapping[str, Any]) -> Found:
    """Folders of pre-trained models that do not exist; names of Hugging Face are looked up when they are loaded."""
    teachers = mapping(data.get("teachers"))
    places = [("features", "model"), ("images", "encoder"), *(("teachers", name, "backbone") for name in teachers)]
    for path in places:
        value: Any = data
        for part in path:
            value = mapping(value).get(part)
        if isinstance(value, str) and (problem := missing_folder(value)):
            yield path, problem


def _wrong_student(data: Mapping[str, Any]) -> Found:
    student, source = mapping(data.get("student")), mapping(data.get("input"))
    kind = student.get("kind")
    if isinstance(kind, str) and kind in COUNTING and data.get("distillation") is not None:
        others = ", ".join(name for name in STUDENTS if name not in COUNTING)
        yield ("student", "kind"), f"{kind!r} counts and cannot be taught; choose {others}, or remove `distillation`"
    if student.get("user_fields") and source and not source.get("users"):
        yield ("student", "user_fields"), "need a file of users; set input.users"
    fields, columns = student.get("item_fields"), source.get("text_columns")
    if fields and source and not source.get("items"):
        yield ("student", "item_fields"), "need a file of items; set input.items"
    elif isinstance(fields, list) and isinstance(columns, list) and columns:
        for index, name in enumerate(fields):
            if name not in columns:
                known = ", ".join(map(str, columns))
                message = f"{name!r} is none of input.text_columns: {known}{nearest(str(name), map(str, columns))}"
                yield ("student", "item_fields", index), message


def _wrong_baselines(data: Mapping[str, Any]) -> Found:
    known = [*STUDENTS, PLAIN]
    baselines = data.get("baselines")
    for index, name in enumerate(baselines if isinstance(baselines, list) else ()):
        if name not in known:
            message = f"unknown baseline {name!r}; known: {', '.join(known)}{nearest(str(name), known)}"
            yield ("baselines", index), message


def _wrong_teachers(data: Mapping[str, Any]) -> Found:
    teachers = mapping(data.get("teachers"))
    for name, teacher in teachers.items():
        if mapping(teacher).get("pretrained") is True and not data.get("pretrain"):
            yield ("teachers", name, "pretrained"), "true needs the section `pretrain` with its domains"
        folder = mapping(teacher).get("pretrained")
        if isinstance(folder, str) and not (Path(folder) / MANIFEST_FILE).is_file():
            message = f"no finished artifact at {folder!r}; give a folder such as runs/NAME/pretrain/TEACHER"
            yield ("teachers", name, "pretrained"), message
    if data.get("distillation") is None:
        return
    if not teachers:
        yield ("distillation",), "needs teachers; add the section `teachers`, or remove this one"
    chosen = mapping(data["distillation"]).get("teachers")
    for index, name in enumerate(chosen if isinstance(chosen, list) else ()):
        if name not in teachers:
            yield ("distillation", "teachers", index), str(UnknownNameError("teacher of this run", str(name), teachers))


def _wrong_variants(data: Mapping[str, Any]) -> Found:
    variants = mapping(data.get("variants"))
    if variants and data.get("distillation") is None:
        yield ("variants",), "override keys of the section `distillation`, which is missing"
        return
    taken = {DISTILLED, PLAIN, *STUDENTS}
    base = mapping(data.get("distillation"))
    for name, changes in variants.items():
        if name in taken:
            yield ("variants", name), f"{name!r} is the name of another student; choose another"
        if isinstance(changes, dict):
            yield from _wrong_changes(changes, base, ("variants", name))


def _wrong_changes(changes: dict[str, Any], base: Mapping[str, Any], path: KeyPath) -> Found:
    try:
        DistillationConfig.model_validate({**base, **changes})
    except ValidationError as error:
        for place, message in validation_problems(error, DistillationConfig, {**base, **changes}):
            if place and place[0] in changes:
                yield (*path, *place), message


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is a mapping, else an empty one: what it should have been is said elsewhere."""
    return value if isinstance(value, dict) else {}
