"""What is wrong with a configuration, said so that it can be mended: key, line, what is valid, what is near.

Pydantic finds the mistakes; here they get the words and the places of the user's own file.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from components.errors import ConfigError, nearest

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake.

    Attributes:
        where: ``"configs/demo.yaml:12"`` or ``"command line"``.
        key: the dotted key, ``""`` for the file as a whole.
        message: what was given, what is valid, what is near.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise one error that shows every problem; do nothing where there is none.

    Raises:
        ConfigError: at least one problem.
    """
    unique = sorted(dict.fromkeys(problems), key=lambda problem: _order(problem.where))
    if unique:
        head = f"{len(unique)} errors in the configuration\n" if len(unique) > 1 else ""
        raise ConfigError(head + "\n".join(str(problem) for problem in unique))


def _order(where: str) -> tuple[str, int]:
    file, _, line = where.rpartition(":")
    return (file, int(line)) if line.isdigit() else ("~", 0)  # what is outside the file comes last


def dotted(path: KeyPath) -> str:
    """The key as a person writes it.

    >>> dotted(("teachers", "unisrec", "training", "epochs"))
    'teachers.unisrec.training.epochs'
    """
    return ".".join(str(part) for part in path)


def validation_problems(
    error: ValidationError, model: type[BaseModel], data: Any, prefix: KeyPath = ()
) -> list[tuple[KeyPath, str]]:
    """Turn pydantic's errors into (key path, message); the branches of a union become one message.

    Args:
        error: what pydantic raised.
        model: the model that was validated; it knows the valid keys.
        data: the value that was validated; tells keys of the user from names of union branches.
        prefix: where `data` stands in the whole configuration.
    """
    messages: dict[KeyPath, list[str]] = {}
    for detail in error.errors(include_url=False):
        location = tuple(detail["loc"])
        kind = detail["type"]
        path = location if kind in ("missing", "extra_forbidden") else _existing(location, data)
        message = _message(detail, valid_keys(model, path[:-1]), path)
        messages.setdefault(prefix + path, []).append(message)
    return [(path, _joined(found)) for path, found in messages.items()]


def valid_keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that exist below `path`, empty where any name is allowed."""
    annotation: Any = model
    for part in path:
        annotation = _step(annotation, part)
    target = _first_model(annotation)
    return sorted(target.model_fields) if target else []


def unknown_key(key: str, valid: Sequence[str]) -> str:
    """The message for a key that nobody reads.

    >>> unknown_key("epoch", ["epochs", "seed"])
    "unknown key; valid keys: epochs, seed; did you mean 'epochs'?"
    """
    return f"unknown key; valid keys: {', '.join(valid)}{nearest(key, valid)}"


def _existing(location: KeyPath, data: Any) -> KeyPath:
    """The longest part of `location` that leads to a value in `data`."""
    path: list[str | int] = []
    for part in location:
        inside = part in data if isinstance(data, Mapping) else _is_index(part, data)
        if not inside:
            break
        path.append(part)
        data = data[part]
    return tuple(path)


def _is_index(part: str | int, data: Any) -> bool:
    return isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data)


def _message(detail: Any, valid: Sequence[str], path: KeyPath) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return unknown_key(str(path[-1]), valid)
        case "missing":
            return "missing; it must be set"
        case "value_error" | "assertion_error":
            return str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        case _:
            return f"{_expectation(str(detail['msg']))}, got {_shown(detail['input'])}{_nearest_literal(detail)}"


def _expectation(message: str) -> str:
    """Pydantic's sentence in our words.

    >>> _expectation("Input should be a valid boolean, unable to interpret input")
    'expected a boolean'
    """
    text = re.sub(r"^Input should be (a |an )?(valid )?", r"expected \1", message)
    text = re.sub(r"^expected a (?=[aeiou])", "expected an ", text)
    text = re.sub(r"^expected (greater|less)", r"expected a value \1", text)
    return re.sub(r", unable to .*$|\.$", "", text)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _nearest_literal(detail: Any) -> str:
    known = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    return nearest(str(detail["input"]), known)


def _joined(messages: list[str]) -> str:
    """One message for all branches of a union.

    >>> _joined(["expected a boolean, got 3", "expected 'auto', got 3"])
    "expected a boolean or 'auto', got 3"
    """
    unique = list(dict.fromkeys(messages))
    parts = [message.rpartition(", got ") for message in unique]
    if len(unique) > 1 and all(before for before, _, _ in parts):
        expectations = " or ".join(before.removeprefix("expected ") for before, _, _ in parts)
        return f"expected {expectations}, got {parts[-1][2]}"
    return "; ".join(unique)


def _step(annotation: Any, part: str | int) -> Any:
    """The annotation of the value that `part` selects."""
    target = _first_model(annotation)
    if target is not None:
        field = target.model_fields.get(str(part))
        return field.annotation if field else None
    for choice in _choices(annotation):
        arguments = get_args(choice)
        if arguments and get_origin(choice) in (dict, list, tuple, Mapping, Sequence):
            return arguments[-1] if get_origin(choice) in (dict, Mapping) else arguments[0]
    return None


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _first_model(annotation: Any) -> type[BaseModel] | None:
    for choice in _choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None
