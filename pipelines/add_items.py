"""``distilrec add-items``: an exported student ranks items that it was not trained on. Nothing is trained.

The run's own encoders and teachers turn texts and pictures into vectors, the projection of the export turns these into
rows of the student. The result is a new release beside the export, which stays as it was: ``RUN/releases/export/``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
import torch
from torch import Tensor

from components.artifacts.format import DIGEST, FILES, read_manifest, seal, verify
from components.artifacts.growth import grow_model
from components.artifacts.models import load_model
from components.artifacts.registry import Registry
from components.data.item_attributes import with_new_items
from components.data.readers import InputConfig
from components.errors import DataError, UserError
from components.golden import write_golden
from components.item_maker import ItemMaker, read_projections, table_rows, why_none
from components.recommender import Recommender
from components.schema import ATTRIBUTES_FILE, COUNT, ITEM, ITEM_ID, ITEMS_FILE, TEXT, TITLE
from components.scores_kept import check_scores
from pipelines.added import SHOWN, Added
from pipelines.cache import storage_errors
from pipelines.driver import LIBRARIES_LOG_FILE, LOG_FILE, logging_to
from pipelines.interrupt import interruptible
from pipelines.lock import run_lock
from pipelines.new_item_table import ItemColumns, NewItems, read_new_items
from pipelines.output import streams_to
from pipelines.progress import make_board
from pipelines.run_content import RunContent
from pipelines.served import EXPORT, RELEASES, find_artifact
from pipelines.stages import Progress

OWN: Final = (DIGEST, FILES, "schema_version")  # fields of a manifest that sealing writes


def add_items_to(run: Path, file: str | None, columns: ItemColumns) -> Added:
    """What the command does: `add_items`, or `undo` where no file is given, with the run folder locked and a log."""
    if not (run / "prepare").is_dir():
        raise UserError(f"{run}: is no run folder; give a run such as runs/NAME, whose teachers and features are there")
    with ExitStack() as stack:
        for one in (storage_errors(run), run_lock(run), logging_to(run / LOG_FILE), interruptible()):
            stack.enter_context(one)
        if file is None:
            return undo(run)
        board = stack.enter_context(make_board(stack.enter_context(streams_to(run / LIBRARIES_LOG_FILE))))
        return add_items(run, file, columns, board.begin("add-items", file))


def add_items(run: Path, file: str, columns: ItemColumns, progress: Progress) -> Added:
    """Add the items of `file` to the exported student of `run`, as a new release.

    Args:
        run: a run folder, with its teachers.
        file: a table of new items, read as the run's own item file.
        columns: other names in it.
        progress: told of what is encoded.

    Raises:
        UserError: the run's student cannot take new items; the message says why and what to do.
        DataError: the file cannot be used, or none of its items.
        ArtifactError: a part of the run is damaged or was made again since the export.
    """
    base = find_artifact(run)
    verify(base)
    maker = _maker(run, base)
    content = RunContent(run, base, maker.teachers)
    catalog = pl.read_parquet(base / ITEMS_FILE)
    source = InputConfig.model_validate(content.prepared.manifest["config"]["input"])
    known = set(catalog[ITEM_ID].cast(pl.String).to_list())
    found = read_new_items(file, source, content.text_columns, columns, known)
    if not found.ids:
        return _nothing(base, found, catalog.height, file)
    read = content.read(found, progress)
    with torch.no_grad():
        tables = load_model(base).item_tensors()
    known_texts = content.prepared.attributes if any(table.attribute for table in tables) else {}
    rows = table_rows(tables, maker, read.vectors, read.attributes, known_texts)
    release = _release(run, base, rows, _extended(catalog, found), found)
    return Added(
        artifact=str(release.path),
        version=release.version,
        model=Recommender(release.path).name,
        num_items=catalog.height + len(found.ids),
        added=found.ids,
        known=found.known,
        refused=found.refused,
        unusable_rows=found.unusable,
        pictures=read.pictures,
    )


def undo(run: Path) -> Added:
    """Make the release before the current one current again.

    Raises:
        UserError: there is none.
    """
    registry = Registry(run / RELEASES)
    releases = registry.releases(EXPORT)
    current = next((place for place, release in enumerate(releases) if release.current), 0)
    if current == 0:
        raise UserError(f"{run}: nothing to undo; no items were added since the export")
    release = registry.promote(EXPORT, releases[current - 1].version)
    known = Recommender(release.path)
    return Added(str(release.path), release.version, known.name, known.num_items, [])


def _maker(run: Path, base: Path) -> ItemMaker:
    maker = read_projections(base)
    if maker is not None:
        return maker
    raise UserError(
        f"{run}: its student cannot take new items: {why_none(base)}. Add a teacher of kind unisrec, unim2rec or "
        "recformer and a section `features`, choose a student with item vectors, leave export.new_items on, and run "
        "`distilrec run CONFIG` again"
    )


def _nothing(base: Path, found: NewItems, num_items: int, file: str) -> Added:
    """What is said where the file brings nothing new.

    Raises:
        DataError: it holds items, and none can be used.
    """
    if found.refused or not found.known:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in Counter(found.refused.values()).items())
        shown = ", ".join(list(found.refused)[:SHOWN])
        raise DataError(
            f"{file}: no item of it can be added: {reasons or 'it holds no row with an id'}"
            f"{f' ({shown})' if shown else ''}; {len(found.known)} are known already, {found.unusable} rows lack an id"
        )
    return Added(str(base), "", Recommender(base).name, num_items, [], found.known, unusable_rows=found.unusable)


def _extended(catalog: pl.DataFrame, found: NewItems) -> pl.DataFrame:
    """The catalog with the new items behind: no training interactions yet."""
    count, first = len(found.ids), catalog.height + 1
    columns = {
        ITEM: pl.Series(range(first, first + count)),
        ITEM_ID: pl.Series(found.ids),
        COUNT: pl.Series([0] * count),
        TEXT: found.frame[TEXT],
    }
    if TITLE in found.frame.columns:
        columns[TITLE] = pl.Series(found.attributes([TITLE])[TITLE])
    empty = pl.Series([None] * count)
    new = [columns.get(name, empty).alias(name).cast(kind, strict=False) for name, kind in catalog.schema.items()]
    return catalog.vstack(pl.DataFrame(new))


def _release(run: Path, base: Path, rows: Mapping[str, Tensor], items: pl.DataFrame, found: NewItems) -> Any:
    """Write, check and promote the new artifact; the one before it is a release too, to go back to."""
    registry = Registry(run / RELEASES)
    if base.parent.parent.resolve() != registry.root.resolve():
        registry.put(EXPORT, base)
    manifest = read_manifest(base)
    with _beside(registry.root) as folder:
        for name in manifest[FILES]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, folder / name)
        grow_model(base, folder, rows)
        items.write_parquet(folder / ITEMS_FILE)
        grown = load_model(folder)
        check_scores(load_model(base), grown)
        write_golden(grown, folder)  # new items may stand in the old answers
        if ATTRIBUTES_FILE in manifest[FILES]:
            known = pl.read_parquet(base / ATTRIBUTES_FILE)
            with_new_items(known, found.frame, manifest["attributes"]).write_parquet(folder / ATTRIBUTES_FILE)
        kept = {name: value for name, value in manifest.items() if name not in OWN}
        before = manifest.get("added", {})
        seal(
            folder,
            {
                **kept,
                "added": {
                    "export": before.get("export", manifest[DIGEST]),
                    "base": manifest[DIGEST],
                    "items": before.get("items", 0) + len(found.ids),
                },
            },
        )
        return registry.put(EXPORT, folder)


@contextmanager
def _beside(root: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".adding-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
