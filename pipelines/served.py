"""Which artifact a command means: a run, its export, an artifact folder, or a folder of releases."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from components.artifacts.format import DIGEST, read_manifest
from components.artifacts.registry import POINTER, Registry
from components.errors import UserError
from components.schema import MANIFEST_FILE, MODEL_FILE

EXPORT: Final = "export"
RELEASES: Final = "releases"  # below a run: its export, and the same with items that were added


def find_artifact(run: Path) -> Path:
    """The artifact folder that `run` means.

    Args:
        run: ``runs/NAME``, ``runs/NAME/export``, any artifact folder, or one name of a folder of releases. Of a run
            that got items after its export it is the release with them; of its ``export`` the one without.

    Raises:
        UserError: there is none; the message says how to make one.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give a run such as runs/NAME, or the folder of an artifact")
    if (run / POINTER).is_file():
        return Registry(run.parent).get(run.name).path
    grown = grown_export(run)
    if grown is not None:
        return grown.resolve()
    for folder in (run / EXPORT, run):
        if (folder / MODEL_FILE).is_file() or (folder / MANIFEST_FILE).is_file():
            return folder.resolve()
    raise UserError(
        f"{run}: holds no export; finish the run first with `distilrec run CONFIG` or `distilrec export CONFIG`"
    )


def find_run(artifact: Path) -> Path | None:
    """The run that an artifact is the export of, or a release of its export; None where it lies elsewhere."""
    for folder in list(artifact.resolve().parents)[:3:2]:  # RUN/export, RUN/releases/export/v0001
        if (folder / "prepare").is_dir():
            return folder
    return None


def grown_export(run: Path) -> Path | None:
    """The current release of the run's export; None where there is none, or where the run was exported again since."""
    if not (run / RELEASES / EXPORT / POINTER).is_file():
        return None
    release = Registry(run / RELEASES).get(EXPORT)
    if not (run / EXPORT / MANIFEST_FILE).is_file():
        return release.path
    manifest = release.manifest
    origin = manifest.get("added", {}).get("export", manifest.get(DIGEST))
    return release.path if origin == read_manifest(run / EXPORT).get(DIGEST) else None
