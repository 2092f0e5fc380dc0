"""From a YAML file and overrides to a validated `RunConfig`; every mistake is found before any is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from components.distillation.config import DistillationConfig
from components.errors import UnknownNameError, nearest
from components.features.pretrained import missing_folder
from components.schema import MANIFEST_FILE
from components.students import STUDENTS
from components.teachers import TEACHERS
from components.teachers.external import EXTERNAL, ExternalConfig
from pipelines.config import COUNTING, DEFAULT_STUDENT, DISTILLED, PLAIN, ModelChoice, RunConfig, TeacherConfig
from pipelines.config_errors import KeyPath, raise_problems, unknown_key, validation_problems
from pipelines.config_file import ConfigSource, apply_overrides, read_source

READ_VECTORS: Final = ("unisrec", "unim2rec")  # teachers
READ_TEXTS: Final = ("recformer",)
Found = Iterator[tuple[KeyPath, str]]
STUDENT_CONFIGS: Final[Mapping[str, type[BaseModel]]] = {name: spec.config for name, spec in STUDENTS.items()}
TEACHER_CONFIGS: Final[Mapping[str, type[BaseModel]]] = {
    EXTERNAL: ExternalConfig,
    **{name: spec.config for name, spec in TEACHERS.items()},
}


def load_config(file: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, override and validate a configuration.

    Args:
        file: the YAML file.
        overrides: ``key.sub=value``, the value in YAML.

    Raises:
        ConfigError: names every wrong key with file and line, what was given, what is valid, and the nearest match.
    """
    source = read_source(Path(file))
    apply_overrides(source, overrides)
    for path, message in _contradictions(source.data):
        source.report(path, message)
    _resolve_models(source)
    config = _validated(source)
    raise_problems(source.problems)
    assert config is not None  # a failed validation left a problem
    return config


def _validated(source: ConfigSource) -> RunConfig | None:
    try:
        return RunConfig.model_validate(source.data)
    except ValidationError as error:
        for path, message in validation_problems(error, RunConfig, source.data):
            source.report(path, message)
        return None


def _resolve_models(source: ConfigSource) -> None:
    """Check the arguments of student and teachers against their registries, and fill in the defaults."""
    if "student" in source.data:
        source.data["student"] = _resolved(source, "student", ("student",), ModelChoice, STUDENT_CONFIGS)
    for name in _mapping(source.data.get("teachers")):
        teachers = source.data["teachers"]
        teachers[name] = _usual_training(
            _resolved(source, "teacher", ("teachers", name), TeacherConfig, TEACHER_CONFIGS)
        )


def _usual_training(teacher: Any) -> Any:
    """The teacher's section with how its kind is usually trained, where the user says nothing."""
    kind = _mapping(teacher).get("kind")
    training = _mapping(teacher).get("training", {})
    if not isinstance(kind, str) or kind not in TEACHERS or not isinstance(training, dict):
        return teacher
    return {**teacher, "training": {**TEACHERS[kind].training, **training}}


def _resolved(
    source: ConfigSource,
    role: str,
    path: tuple[str, ...],
    choice: type[BaseModel],
    registry: Mapping[str, type[BaseModel]],
) -> Any:
    """The section at `path` with all arguments of its kind; as it is where something is wrong with it."""
    section: Any = source.data
    for part in path:
        section = section[part]
    kind = _mapping(section).get("kind")
    if not isinstance(kind, str):
        return section  # the validation of the whole says so
    if kind not in registry:
        source.report((*path, "kind"), str(UnknownNameError(role, kind, registry)))
        return section
    own = {key: value for key, value in section.items() if key in choice.model_fields}
    given = {key: value for key, value in section.items() if key not in own}
    try:
        return {**own, **registry[kind].model_validate(given).model_dump()}
    except ValidationError as error:
        for place, message in validation_problems(error, registry[kind], given, path):
            if message.startswith("unknown key"):
                message = unknown_key(str(place[-1]), sorted({*choice.model_fields, *registry[kind].model_fields}))
            source.report(place, message)
        return section


def _contradictions(data: Mapping[str, Any]) -> Found:
    """What pydantic cannot see: names that must exist elsewhere, sections that need each other.

    It looks at the plain data and not at the validated object, so that it finds something even where that is wrong.
    """
    seeds = data.get("seeds")
    if isinstance(seeds, list) and len({str(seed) for seed in seeds}) != len(seeds):
        yield ("seeds",), f"a seed is there twice: {seeds}"
    if data.get("images") is not None and data.get("features") is None:
        yield ("images",), "needs the section `features` (of texts) beside it; `features: {}` takes its defaults"
    yield from _missing_texts(data)
    yield from _missing_models(data)
    yield from _wrong_student(data)
    yield from _wrong_baselines(data)
    yield from _wrong_teachers(data)
    yield from _wrong_variants(data)
    yield from _wrong_geometry(data)


def _wrong_geometry(data: Mapping[str, Any]) -> Found:
    """Item geometry for a student whose items have no vectors of their own."""
    kind = _mapping(data.get("student")).get("kind", DEFAULT_STUDENT)
    known = [name for name, spec in STUDENTS.items() if spec.item_table]
    if kind not in STUDENTS or kind in known:
        return
    sections: dict[KeyPath, Any] = {("distillation",): data.get("distillation")}
    sections |= {("variants", name): changes for name, changes in _mapping(data.get("variants")).items()}
    for path, section in sections.items():
        if _mapping(section).get("item_geometry"):
            message = f"the student {kind!r} has no item table that could follow the teachers'; these have: "
            yield (*path, "item_geometry"), f"{message}{', '.join(known)}; or set it to 0"


def _missing_texts(data: Mapping[str, Any]) -> Found:
    """Who reads texts needs a file of items; who reads their vectors, the section that makes them."""
    source = _mapping(data.get("input"))
    pictured = data.get("images") is not None
    if data.get("features") is not None and source and not source.get("items") and not pictured:
        yield ("features",), "needs item texts; set input.items, and input.text_columns where they have unusual names"
    for name, teacher in _mapping(data.get("teachers")).items():
        kind = _mapping(teacher).get("kind")
        if kind in READ_VECTORS and data.get("features") is None:
            message = f"{kind!r} reads vectors of item texts; add the section `features`; `features: {{}}` is enough"
            yield ("teachers", name, "kind"), message
        elif kind in READ_TEXTS and source and not source.get("items"):
            yield ("teachers", name, "kind"), f"{kind!r} reads item texts; set input.items"


def _missing_models(data: Mapping[str, Any]) -> Found:
    """Folders of pre-trained models that do not exist; names of Hugging Face are looked up when they are loaded."""
    teachers = _mapping(data.get("teachers"))
    places = [("features", "model"), ("images", "encoder"), *(("teachers", name, "backbone") for name in teachers)]
    for path in places:
        value: Any = data
        for part in path:
            value = _mapping(value).get(part)
        if isinstance(value, str) and (problem := missing_folder(value)):
            yield path, problem


def _wrong_student(data: Mapping[str, Any]) -> Found:
    student, source = _mapping(data.get("student")), _mapping(data.get("input"))
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
    teachers = _mapping(data.get("teachers"))
    for name, teacher in teachers.items():
        if _mapping(teacher).get("pretrained") is True and not data.get("pretrain"):
            yield ("teachers", name, "pretrained"), "true needs the section `pretrain` with its domains"
        folder = _mapping(teacher).get("pretrained")
        if isinstance(folder, str) and not (Path(folder) / MANIFEST_FILE).is_file():
            message = f"no finished artifact at {folder!r}; give a folder such as runs/NAME/pretrain/TEACHER"
            yield ("teachers", name, "pretrained"), message
    if data.get("distillation") is None:
        return
    if not teachers:
        yield ("distillation",), "needs teachers; add the section `teachers`, or remove this one"
    chosen = _mapping(data["distillation"]).get("teachers")
    for index, name in enumerate(chosen if isinstance(chosen, list) else ()):
        if name not in teachers:
            yield ("distillation", "teachers", index), str(UnknownNameError("teacher of this run", str(name), teachers))


def _wrong_variants(data: Mapping[str, Any]) -> Found:
    variants = _mapping(data.get("variants"))
    if variants and data.get("distillation") is None:
        yield ("variants",), "override keys of the section `distillation`, which is missing"
        return
    taken = {DISTILLED, PLAIN, *STUDENTS}
    base = _mapping(data.get("distillation"))
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


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
