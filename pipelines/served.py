"""Which artifact a command means: a run, its export, an artifact folder, or a folder of releases."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from components.artifacts.registry import POINTER, Registry
from components.errors import UserError
from components.schema import MANIFEST_FILE, MODEL_FILE

EXPORT: Final = "export"


def find_artifact(run: Path) -> Path:
    """The artifact folder that `run` means.

    Args:
        run: ``runs/NAME``, ``runs/NAME/export``, any artifact folder, or one name of a folder of releases.

    Raises:
        UserError: there is none; the message says how to make one.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give a run such as runs/NAME, or the folder of an artifact")
    if (run / POINTER).is_file():
        return Registry(run.parent).get(run.name).path
    for folder in (run / EXPORT, run):
        if (folder / MODEL_FILE).is_file() or (folder / MANIFEST_FILE).is_file():
            return folder.resolve()
    raise UserError(
        f"{run}: holds no export; finish the run first with `distilrec run CONFIG` or `distilrec export CONFIG`"
    )
