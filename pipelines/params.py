"""What students weigh before anything trains: parameters and bytes by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from rich.table import Table

from components.compression.footprint import PUBLISHED
from components.compression.sharing import Sharing
from components.data.prepared import PreparedSet
from components.errors import UnknownNameError
from pipelines.config import COUNTING, RunConfig
from pipelines.driver import execute_run
from pipelines.footprints import catalog_of, measure_student

BYTES: Final = 4  # of a number in fp32
WAYS: Final = ("bi", "bo", "bio", "cl", "cb", "al", "ab")  # what CpRec compresses


@dataclass(frozen=True)
class Footprint:
    """One student.

    Attributes:
        name: its kind, or that of a published setting.
        parameters: by part, and their total.
        stored: bytes by part, and their total; those of a published setting are in fp32.
        uncompressed: bytes of the same student without compression; None where it has none.
    """

    name: str
    parameters: dict[str, int]
    stored: dict[str, int]
    uncompressed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "bytes": self.stored,
            "uncompressed_bytes": self.uncompressed,
        }


def footprints(config: RunConfig) -> list[Footprint]:
    """The students of a run, each kind with its arguments once; the logs are prepared first where they are not yet."""
    execute_run(config, "prepare")
    catalog = catalog_of(PreparedSet(config.folder / "prepare"))
    found = {}
    for variant in config.students():
        kind, arguments = variant.student.kind, variant.student.arguments
        if kind in COUNTING:
            continue  # it has no parameters
        whole = {key: value for key, value in arguments.items() if key != "compression"}
        parameters, stored = measure_student(catalog, kind, arguments)
        base = measure_student(catalog, kind, whole)[1]["total"] if arguments.get("compression") else None
        found[kind, str(arguments)] = Footprint(kind, parameters, stored, base)
    return list(found.values())


def published(name: str) -> Footprint:
    """A setting of CpRec's tables by name, in closed form: ``nextitnet-ml20``, ``cprec-ab-ml20``, …

    Raises:
        UnknownNameError: there is no such setting.
    """
    if name in PUBLISHED:
        return _in_fp32(name, PUBLISHED[name].parameters())
    sets = [known.removeprefix("nextitnet-") for known in PUBLISHED if known.startswith("nextitnet-")]
    presets = {f"cprec-{way}-{one}": (way, PUBLISHED[f"nextitnet-{one}"]) for way in WAYS for one in sets}
    if name not in presets:
        raise UnknownNameError("preset", name, [*PUBLISHED, *presets])
    way, base = presets[name]
    sharing = cast(Sharing, way if way in get_args(Sharing) else "none")
    parameters = base.parameters(blocks_in=way != "bo", blocks_out=way != "bi", sharing=sharing)
    return _in_fp32(name, parameters, base.parameters()["total"])


def _in_fp32(name: str, parameters: dict[str, int], uncompressed: int | None = None) -> Footprint:
    stored = {part: BYTES * count for part, count in parameters.items()}
    return Footprint(name, parameters, stored, uncompressed and BYTES * uncompressed)


def footprint_table(rows: list[Footprint]) -> Table:
    """For people: parameters by part, megabytes as stored, and how much smaller compression made them."""
    table = Table("student", title="Parameters", title_justify="left")
    for column in ("embedding", "network", "head", "total", "MB", "smaller"):
        table.add_column(column, justify="right")
    for row in rows:
        parts = [f"{row.parameters[part]:,}" for part in ("embedding", "network", "head", "total")]
        smaller = f"{row.uncompressed / row.stored['total']:.1f} x" if row.uncompressed else "-"
        table.add_row(row.name, *parts, f"{row.stored['total'] / 1e6:,.2f}", smaller)
    return table
