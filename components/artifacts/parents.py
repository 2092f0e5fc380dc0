"""What an artifact was made from, as long as it is still there unchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.artifacts.format import read_manifest, verify
from components.errors import ArtifactError, UserError
from components.schema import MANIFEST_FILE


def unchanged_parent(run: Path, artifact: Path, node: str) -> Path:
    """The folder of a finished node of `run`, which must be the one that `artifact` was made from.

    Raises:
        UserError: it is not there.
        ArtifactError: it is another one, or damaged.
    """
    folder = run / node
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(f"{folder}: missing; give the folder of the whole run, or run `distilrec run CONFIG` again")
    found = hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()
    if found != read_manifest(artifact).get("parents", {}).get(node):
        raise ArtifactError(f"{folder}: was made again since the export; run `distilrec export CONFIG` first")
    verify(folder)
    return folder
