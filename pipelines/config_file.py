"""A YAML file as plain data in which every key still knows its line; overrides from the command line join it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from components.errors import ConfigError
from pipelines.config_errors import KeyPath, Problem, dotted

VARIABLE: Final = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
COMMAND_LINE: Final = "command line"


@dataclass
class ConfigSource:
    """What the user wrote, and where.

    Attributes:
        file: the YAML file, for messages.
        data: plain dicts, lists and scalars.
        lines: line of every key that the file holds, counted from 1.
        overridden: keys that the command line set.
        problems: what reading found wrong.
    """

    file: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overridden: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def report(self, path: KeyPath, message: str) -> None:
        """Add a problem at `path`."""
        self.problems.append(Problem(self.where(path), dotted(path), message))

    def where(self, path: KeyPath) -> str:
        """``file:line`` of the key, or of the nearest key above it that the file holds."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.overridden:
                return COMMAND_LINE
            if path[:end] in self.lines:
                return f"{self.file}:{self.lines[path[:end]]}"
        return self.file


def read_source(file: Path, environment: Mapping[str, str] | None = None) -> ConfigSource:
    """Read a YAML file, find duplicate keys, and replace ``${VARIABLE}`` and ``${VARIABLE:-default}`` in its strings.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or is no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot read the configuration: {_reason(error)}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_message(file, error)) from error
    except ValueError as error:  # a date such as 2020-13-45
        raise ConfigError(f"{file}: not valid YAML: {error}") from error
    if not isinstance(data, dict) or root is None:
        raise ConfigError(f"{file}: expected a mapping of keys to values, found {type(data).__name__}")
    source = ConfigSource(str(file), data)
    _walk(root, (), source, [])
    source.data = _expanded(source.data, (), source, os.environ if environment is None else environment)
    return source


def apply_overrides(source: ConfigSource, overrides: Iterable[str]) -> None:
    """Set every ``key.sub=value`` (the value is YAML) in `source`; what is wrong joins its problems."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            source.problems.append(Problem(COMMAND_LINE, "", f"{override!r}: expected key=value or key.sub=value"))
            continue
        _set(source, tuple(key.split(".")), _value(text))


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _set(source: ConfigSource, path: tuple[str, ...], value: Any) -> None:
    node = source.data
    for depth, part in enumerate(path[:-1]):
        if node.get(part) is None:
            node[part] = {}
        if not isinstance(node[part], dict):
            source.overridden.add(path)
            source.report(path, f"{dotted(path[: depth + 1])} is a {type(node[part]).__name__}, it has no keys")
            return
        node = node[part]
    node[path[-1]] = value
    source.overridden.add(path)


def _walk(node: yaml.Node, path: KeyPath, source: ConfigSource, above: list[int]) -> None:
    """Note the line of every key, and report duplicates."""
    if id(node) in above:
        raise ConfigError(f"{source.file}:{node.start_mark.line + 1}: the value contains itself through a YAML anchor")
    above = [*above, id(node)]
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            source.lines[(*path, index)] = child.start_mark.line + 1
            _walk(child, (*path, index), source, above)
    elif isinstance(node, yaml.MappingNode):
        own: set[KeyPath] = set()
        for key, child in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            place = (*path, str(key.value))
            if place in own:
                line = key.start_mark.line + 1
                message = f"the key is there twice, first in line {source.lines[place]}; keep one"
                source.problems.append(Problem(f"{source.file}:{line}", dotted(place), message))
                continue
            own.add(place)
            source.lines[place] = key.start_mark.line + 1
            _walk(child, place, source, above)


def _expanded(value: Any, path: KeyPath, source: ConfigSource, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {str(key): _expanded(child, (*path, str(key)), source, environment) for key, child in value.items()}
    if isinstance(value, list):
        return [_expanded(child, (*path, index), source, environment) for index, child in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = environment.get(name) or default
        if found is None:
            source.report(path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        return found or ""

    return VARIABLE.sub(replace, value)


def _syntax_message(file: Path, error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{file}: not a YAML file: {error}"
    mark = error.problem_mark
    context = f"{error.context}, " if error.context else ""
    return f"{file}:{mark.line + 1}: column {mark.column + 1}: not valid YAML: {context}{error.problem}"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
