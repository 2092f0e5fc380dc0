"""From a YAML file and overrides to a validated `RunConfig`; every mistake is found before any is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from components.errors import UnknownNameError
from components.students import STUDENTS
from components.teachers import TEACHERS
from components.teachers.external import EXTERNAL, ExternalConfig
from pipelines.config import RunConfig, TeacherConfig
from pipelines.config_errors import raise_problems, unknown_key, validation_problems
from pipelines.config_file import ConfigSource, apply_overrides, read_source
from pipelines.contradictions import contradictions, mapping
from pipelines.model_choice import ModelChoice

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
    for path, message in contradictions(source.data):
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
    for name in mapping(source.data.get("teachers")):
        teachers = source.data["teachers"]
        teachers[name] = _usual_training(
            _resolved(source, "teacher", ("teachers", name), TeacherConfig, TEACHER_CONFIGS)
        )


def _usual_training(teacher: Any) -> Any:
    """The teacher's section with how its kind is usually trained, where the user says nothing."""
    kind = mapping(teacher).get("kind")
    training = mapping(teacher).get("training", {})
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
    kind = mapping(section).get("kind")
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
            if message.startswith("unknown key") and len(place) == len(path) + 1:  # else it names its own neighbors
                message = unknown_key(str(place[-1]), sorted({*choice.model_fields, *registry[kind].model_fields}))
            source.report(place, message)
        return section
