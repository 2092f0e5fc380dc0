"""The trials of the study of CpRec (Sun et al. 2020): students whole, in blocks of items, with shared layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError

from components.compression.config import CompressionConfig
from components.compression.sharing import Sharing
from components.errors import ConfigError
from components.students import STUDENTS
from components.students.sequential import CompressibleConfig
from pipelines.config import RunConfig
from pipelines.study.plan import Entry, Setting, student_setting

TABLES: Final = ("main", "blocks", "sharing", "transfer")
PRETRAINED: Final = ", pre-trained"  # behind a student's name: begins with its like in another study
WHOLE: Final = {"input": "full", "output": "full"}  # the paper's base: one table for the input, one for the output
ONE_BLOCK: Final = {"boundaries": None, "num_blocks": 1, "ranks": None, "output": "flat"}
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {  # as the paper calls them
    "B1": ONE_BLOCK,
    "Bi": {"output": "full"},
    "Bo": {"input": "full"},
    "Bio": {},
}


def require_students(config: RunConfig) -> None:
    """Refuse a configuration whose students cannot be compressed.

    Raises:
        ConfigError: which, and why.
    """
    for name, student in config.study.cprec.students.items():
        if student.kind not in STUDENTS or not issubclass(STUDENTS[student.kind].config, CompressibleConfig):
            known = [kind for kind, spec in STUDENTS.items() if issubclass(spec.config, CompressibleConfig)]
            raise ConfigError(
                f"study.cprec.students.{name}: {student.kind} cannot be compressed; these can: {', '.join(known)}"
            )
    try:
        CompressionConfig.model_validate(config.study.cprec.blocks)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(["study.cprec.blocks", *map(str, detail["loc"])])
        raise ConfigError(f"{place}: {detail['msg']}") from error


def cprec_entries(config: RunConfig, tables: Sequence[str] = TABLES) -> dict[str, list[Entry]]:
    """The rows of each table, none where it has nothing to show; a student that several tables show is trained once.

    Raises:
        ConfigError: see `require_students`.
    """
    require_students(config)
    makers = {"main": _main, "blocks": _blocks, "sharing": _sharing, "transfer": _transfer}
    return {table: makers[table](config) for table in tables}


def _main(config: RunConfig) -> list[Entry]:
    """Table 2: the student whole and tied, and CpRec with each way to share layers."""
    rows = []
    for name, base in _bases(config).items():
        rows += [_entry(name, base, WHOLE), Entry(f"{name}, tied", base, name)]
        rows.append(_entry(f"{name} CpRec", base, _blocks_of(config), name))
        for sharing in _sharings(base):
            way = {**_blocks_of(config), "sharing": sharing}
            rows.append(_entry(f"{name} CpRec-{sharing.capitalize()}", base, way, name))
    return rows


def _blocks(config: RunConfig) -> list[Entry]:
    """Tables 3 and 5: item vectors of the input, the output and both in blocks, and all of one low rank."""
    rows = []
    for name, base in _bases(config).items():
        rows.append(_entry(name, base, WHOLE))
        for way, changes in WAYS.items():
            rows.append(_entry(f"{name} {way}", base, {**_blocks_of(config), **changes}, name))
    return rows


def _sharing(config: RunConfig) -> list[Entry]:
    """Table 4: layers shared, item vectors whole."""
    rows = []
    for name, base in _bases(config).items():
        sharings = _sharings(base)
        if sharings:
            rows.append(_entry(name, base, WHOLE))
        for sharing in sharings:
            rows.append(_entry(f"{name} {sharing.capitalize()}", base, {**WHOLE, "sharing": sharing}, name))
    return rows


def _transfer(config: RunConfig) -> list[Entry]:
    """Table 6: whole and compressed students, from scratch and with the network of their like in another study."""
    source = config.study.cprec.transfer
    if source is None:
        return []
    rows = []
    for name, base in _bases(config).items():
        ways = {name: WHOLE, f"{name} CpRec": _blocks_of(config)}
        ways |= {
            f"{name} CpRec-{sharing.capitalize()}": {**_blocks_of(config), "sharing": sharing}
            for sharing in _sharings(base)
        }
        for called, way in ways.items():
            scratch = _entry(called, base, way)
            begun = replace(scratch.setting, source=Path(source))
            rows += [scratch, Entry(called + PRETRAINED, begun, called)]
    return rows


def _bases(config: RunConfig) -> dict[str, Setting]:
    return {name: student_setting(config, student) for name, student in config.study.cprec.students.items()}


def _blocks_of(config: RunConfig) -> dict[str, Any]:
    return dict(config.study.cprec.blocks)


def _sharings(base: Setting) -> list[Sharing]:
    model = STUDENTS[base.kind].config
    known = model.sharings if issubclass(model, CompressibleConfig) else ()
    return [sharing for sharing in get_args(Sharing) if sharing in known and sharing != "none"]


def _entry(name: str, base: Setting, compression: Mapping[str, Any], against: str | None = None) -> Entry:
    given = {key: value for key, value in compression.items() if value is not None}
    try:
        arguments = STUDENTS[base.kind].config.model_validate({**base.arguments, "compression": given})
    except ValidationError as error:
        raise ConfigError(f"study.cprec: {name}: {error.errors()[0]['msg']}") from error
    return Entry(name, replace(base, arguments=arguments.model_dump(mode="json")), against)
