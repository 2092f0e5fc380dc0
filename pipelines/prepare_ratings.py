"""Task ``ratings`` of stage ``prepare``: logs -> one stream of labeled ratings, in bounded memory however long it is.

Pieces of the log become sorted runs, in this process or as tasks of Ray Data; the runs are merged range by range.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from components.data.catalog import read_items
from components.data.cleaning import REASON, REJECTED_SCHEMA, SOURCE, PrepareConfig, check_rejected
from components.data.ratings import (
    BINARY,
    FIVE_CLASS,
    GROUP_ROWS,
    KEY,
    RATINGS_FILE,
    ROW,
    RUN_COLUMNS,
    RUN_ROWS,
    Numbering,
    labeled,
    merged,
    outside_scale,
    run_tally,
    shuffle_keys,
    write_run,
)
from components.data.readers import (
    InputConfig,
    Log,
    Quarantine,
    estimate_rows,
    open_log,
    read_rows,
    rejected_counts,
    rejected_example,
)
from components.data.sources import Source
from components.data.tally import Tally
from components.data.timestamps import SECOND
from components.errors import DataError
from components.schema import (
    COUNT,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    RATING,
    RATINGS_FOLDER,
    REJECTED_FOLDER,
    TIMESTAMP,
    USER,
    USER_ID,
    USERS_FILE,
)
from pipelines.stages import Progress

RUNS_FOLDER: Final = ".runs"  # of the partial folder; removed when the stream is written
STREAM_COLUMNS: Final = (USER, ITEM, TIMESTAMP, RATING, BINARY, FIVE_CLASS)


def prepare_ratings(
    data: str, config_input: InputConfig, config: PrepareConfig, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Write the stream of a log, its users and its items into `folder`; returns counts for the manifest.

    Raises:
        DataError: the log has no ratings or no times, or too many of its rows cannot be used.
    """
    folder = folder.absolute()  # tasks run elsewhere
    log = open_log(data, config_input)
    for column in (RATING, TIMESTAMP):
        if column not in log.columns:
            raise DataError(
                f"prepare.task: ratings needs a column of {column}s; the log has {', '.join(log.columns)}: map "
                f"input.columns.{column}"
            )
    rows, counts = _sorted_runs(log, config, folder, progress)
    progress.note("merging by time")
    runs = sorted((folder / RUNS_FOLDER).glob("*.parquet"))
    users, items, digest = Numbering(USER_ID), Numbering(ITEM_ID), hashlib.sha256()
    written = _Parts(folder / (RUNS_FOLDER if config.ratings.order == "shuffled" else RATINGS_FOLDER))
    before = 0
    for part in merged(runs, TIMESTAMP, rows):
        kept = part.unique([USER_ID, ITEM_ID, TIMESTAMP, RATING], keep="first", maintain_order=True)
        kept = part if config.duplicates == "keep" else kept
        before += part.height
        stream = labeled(_numbered(kept, users, items), config.ratings).select(STREAM_COLUMNS)
        for column in (USER, ITEM, TIMESTAMP, RATING):
            digest.update(stream[column].to_numpy().tobytes())
        written.add(stream)
    if config.ratings.order == "shuffled":
        progress.note("shuffling")
        _shuffle(written, folder, config.ratings.shuffle_seed)
    shutil.rmtree(folder / RUNS_FOLDER)
    _write_tables(data, config_input, users, items, folder, counts)
    (folder / RATINGS_FILE).write_text(config.ratings.model_dump_json(indent=2) + "\n", encoding="utf-8")
    digest.update(f"{config.ratings.order} {config.ratings.shuffle_seed}".encode())
    return counts | {
        "task": "ratings",
        "duplicates": before - written.rows,
        "ratings": written.rows,
        "positive": round(written.positive / written.rows, 9),
        "users": len(users),
        "num_items": len(items),
        "order": config.ratings.order,
        "fingerprint": digest.hexdigest(),
    }


def _sorted_runs(log: Log, config: PrepareConfig, folder: Path, progress: Progress) -> tuple[int, dict[str, Any]]:
    """Read and clean the log into sorted runs; returns how many rows they hold, and counts."""
    estimate, pieces = estimate_rows(log), log.split()
    progress.start(estimate, "rows")
    if estimate <= config.fast_path_rows:
        tables: Iterator[pa.Table] = (sort_piece(source, pieces, config, folder) for source in pieces.sources)
    else:
        from pipelines.ray_ratings import sort_with_ray  # the fast path starts without Ray

        tables = sort_with_ray(pieces, config, folder)
    told = []
    for table in tables:
        told.append(table)
        progress.advance(Tally([table]).scalar("rows"))
    found, reasons = Tally(told), rejected_counts(folder)
    rows = found.scalar("rows")
    read = rows + sum(reasons.values())
    check_rejected(read, reasons, config.max_rejected, rejected_example(folder))
    if not rows:
        raise DataError(f"of {read:,} rows none can be used: {'; '.join(reasons)}; mend the log")
    return rows, {"rows_read": read, "rejected": reasons}


def sort_piece(source: Source, log: Log, config: PrepareConfig, folder: Path) -> pa.Table:
    """Read one piece of the log, put aside what is rated outside the scale, and write the rest as sorted runs."""
    rejected = folder / REJECTED_FOLDER
    outside = Quarantine(rejected / f"scale-{source.index:05d}.parquet")
    waiting: list[pl.DataFrame] = []
    rows = runs = 0

    def flush() -> None:
        nonlocal runs, waiting
        if waiting:
            write_run(pl.concat(waiting), TIMESTAMP, folder / RUNS_FOLDER / f"{source.index:05d}-{runs:05d}.parquet")
            runs, waiting = runs + 1, []

    for frame in read_rows(source, log, rejected):
        texts = frame.select(RUN_COLUMNS).with_columns(pl.col(USER_ID, ITEM_ID).cast(pl.String))
        wrong = outside_scale(texts, config.ratings)
        outside.add(_rejected(texts.filter(wrong), source, config))
        waiting.append(texts.filter(~wrong))
        rows += waiting[-1].height
        if sum(one.height for one in waiting) >= RUN_ROWS:
            flush()
    flush()
    outside.close()
    return run_tally(rows)


def _rejected(rows: pl.DataFrame, source: Source, config: PrepareConfig) -> pl.DataFrame:
    low, high = config.ratings.scale
    reason = f"rating is outside the scale {low:g} to {high:g}"
    shown = rows.drop(ROW)
    found = shown.select(
        pl.lit(source.name).alias(SOURCE),
        pl.struct(shown.columns).struct.json_encode().alias("row"),
        pl.lit(reason).alias(REASON),
    )
    return found.select(pl.col(name).cast(kind) for name, kind in REJECTED_SCHEMA.items())


def _numbered(rows: pl.DataFrame, users: Numbering, items: Numbering) -> pl.DataFrame:
    numbers = users.number(rows).alias(USER), items.number(rows).alias(ITEM)
    return rows.with_columns(*numbers, pl.col(TIMESTAMP) // SECOND)


class _Parts:
    """Writes consecutive parts of the stream."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows, self.positive = folder, 0, 0
        self.files: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, rows: pl.DataFrame) -> None:
        self.files.append(self.folder / f"part-{len(self.files):05d}.parquet")
        rows.write_parquet(self.files[-1], row_group_size=GROUP_ROWS)
        self.rows += rows.height
        self.positive += int(rows[BINARY].cast(pl.Int64).sum())


def _shuffle(ordered: _Parts, folder: Path, seed: int) -> None:
    """Write the stream once more, in an order that depends on the places in time and the seed alone."""
    place, runs = 0, []
    for index, file in enumerate(ordered.files):
        rows = pl.read_parquet(file)
        keys = shuffle_keys(place, rows.height, seed)
        places = np.arange(place, place + rows.height)
        runs.append(folder / RUNS_FOLDER / f"shuffled-{index:05d}.parquet")
        write_run(rows.with_columns(pl.Series(KEY, keys), pl.Series(ROW, places)), KEY, runs[-1])
        place += rows.height
    shuffled = _Parts(folder / RATINGS_FOLDER)
    for part in merged(runs, KEY, place):
        shuffled.add(part.select(STREAM_COLUMNS))


def _write_tables(
    data: str, config: InputConfig, users: Numbering, items: Numbering, folder: Path, counts: dict[str, Any]
) -> None:
    users.table(USER).write_parquet(folder / USERS_FILE)
    found = items.table(ITEM)
    described = read_items(data, config.model_copy(update={"images": None}), found[ITEM_ID])
    own = described.frame.drop([ITEM, COUNT], strict=False)
    found.join(own, on=ITEM_ID, how="left", maintain_order="left").write_parquet(folder / ITEMS_FILE)
    counts["items"] = {**described.counts, "text_columns": described.text_columns}
