"""Whose recommendations `distilrec batch` writes: the users of the run's prepared set, or those of a file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.format import read_manifest
from components.data.prepared import PreparedSet
from components.data.readers import InputConfig, estimate_rows, open_log, read_rows, rejected_counts
from components.data.sequences import user_range
from components.errors import DataError, UserError
from components.schema import ITEM_ID, MANIFEST_FILE, POSITION, REJECTED_FOLDER, TIMESTAMP, USER_ID

HISTORY: Final = "history"  # list of item ids, oldest first
PREPARED: Final = "prepare"
WORK: Final = "work"  # below the target until it is finished
ROWS_AT_ONCE: Final = 2048  # users that are in memory at once
PIECES: Final = 32  # so many pieces, where users are few: several processes share them, and progress shows
SMALLEST_PIECE, LARGEST_PIECE = 64, 16384  # users; a piece becomes one file
ROWS_PER_BUCKET: Final = 1_250_000  # interactions that are gathered in memory at once


@dataclass(frozen=True)
class Users:
    """Histories in Parquet files, one row per user: `user`, `user_id`, `items` (numbers) or `user_id`, `history` (ids).

    Attributes:
        files: in their order.
        rejected: rows of the input that could not be used, by reason.
    """

    files: list[Path]
    rejected: dict[str, int]

    def pieces(self) -> list[dict[str, Any]]:
        """What a process ranks at once: rows ``first .. stop - 1`` of a file, and the number of the shard they become.

        Raises:
            DataError: there is no user.
        """
        rows = [pq.read_metadata(file).num_rows for file in self.files]
        size = min(max(sum(rows) // PIECES, SMALLEST_PIECE), LARGEST_PIECE)
        cuts = [
            {"file": str(file.resolve()), "first": first, "stop": min(first + size, count)}
            for file, count in zip(self.files, rows, strict=True)
            for first in range(0, count, size)
        ]
        if not cuts:
            raise DataError("there is no user to recommend to: the histories are empty")
        return [{**cut, "shard": number} for number, cut in enumerate(cuts)]


def prepared_key(run: Path, artifact: Path) -> dict[str, Any]:
    """What tells the run's prepared set from any other.

    Raises:
        UserError: the run has none, or the artifact was trained on another.
    """
    manifest = run / PREPARED / MANIFEST_FILE
    if not manifest.is_file():
        raise UserError(f"{run}: has no prepared set whose users could be ranked for; give their histories by --users")
    found = hashlib.sha256(manifest.read_bytes()).hexdigest()
    if read_manifest(artifact).get("data_fingerprint") != found:
        raise UserError(
            f"{run / PREPARED}: {artifact} was trained on another prepared set; run `distilrec run CONFIG` to train on "
            "this one, or give histories by --users"
        )
    return {PREPARED: found}


def prepared_users(run: Path) -> Users:
    """The users of the run's prepared set, with all that they did.

    Raises:
        UserError: a user may have several sequences there.
    """
    prepared = PreparedSet(run / PREPARED)
    if "chunks" in prepared.manifest:
        raise UserError(
            f"{prepared.path}: prepare.chunk_length cut histories, so a user has several; give whole ones by --users"
        )
    return Users(prepared.sequence_files, {})


def file_key(file: Path) -> dict[str, Any]:
    """What tells the file from another, or from an older state of itself.

    Raises:
        DataError: there is no such file.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file; --users takes a Parquet, CSV, TSV or JSON-lines file")
    state = file.stat()
    return {"users": str(file.resolve()), "bytes": state.st_size, "changed_ns": state.st_mtime_ns}


def file_users(file: Path, target: Path) -> Users:
    """The users of a file: of one with a column `history` as it is, else of an interaction log.

    A log is gathered below ``target/work``, once; its unusable rows go to ``target/rejected``.

    Raises:
        DataError: a column is missing, or has another type.
    """
    if file.suffix.lower() in (".parquet", ".pq"):
        schema = pq.read_schema(file)
        if HISTORY in schema.names:
            _check(schema, file)
            return Users([file], {})
    done = target / WORK / "histories"
    if not done.is_dir():
        partial = target / WORK / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _gather(file, partial, target / REJECTED_FOLDER)
        partial.rename(done)
    return Users(sorted(done.glob("*.parquet")), rejected_counts(target))


def _check(schema: pa.Schema, file: Path) -> None:
    if USER_ID not in schema.names:
        raise DataError(f"{file}: lacks the column {USER_ID}; it has: {', '.join(schema.names)}")
    kind = schema.field(HISTORY).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DataError(f"{file}: the column {HISTORY} must hold lists of item ids, oldest first, found {kind}")


def _gather(file: Path, folder: Path, rejected: Path) -> None:
    """Interactions -> one row per user, bucket by bucket of users, so that few interactions are in memory."""
    log = open_log("", InputConfig(interactions=str(file.resolve())))
    buckets = max(1, -(-estimate_rows(log) // ROWS_PER_BUCKET))
    order = TIMESTAMP if TIMESTAMP in log.columns else POSITION
    writers: dict[int, pq.ParquetWriter] = {}
    for source in log.sources:
        for rows in read_rows(source, log, rejected):
            texts = rows.select(pl.col(USER_ID, ITEM_ID).cast(pl.String), order).with_columns(
                user_range(buckets).alias("bucket")
            )
            for (bucket,), part in texts.partition_by("bucket", as_dict=True, include_key=False).items():
                table = part.to_arrow(compat_level=pl.CompatLevel.oldest())
                if bucket not in writers:
                    writers[bucket] = pq.ParquetWriter(folder / f"rows-{bucket:05d}", table.schema)
                writers[bucket].write_table(table)
    for bucket, writer in writers.items():
        writer.close()
        rows_file = folder / f"rows-{bucket:05d}"
        users = pl.read_parquet(rows_file).group_by(USER_ID).agg(pl.col(ITEM_ID).sort_by(order, maintain_order=True))
        users.rename({ITEM_ID: HISTORY}).sort(USER_ID).write_parquet(folder / f"part-{bucket:05d}.parquet")
        rows_file.unlink()


def read_piece(file: Path, first: int, stop: int) -> Iterator[pa.Table]:
    """The rows `first` to `stop` - 1 of a Parquet file, few at once; row groups outside of them are not read."""
    with pq.ParquetFile(file) as opened:
        groups: list[int] = []
        begin = wanted = 0
        for group in range(opened.metadata.num_row_groups):
            end = begin + opened.metadata.row_group(group).num_rows
            if begin < stop and end > first:
                if not groups:
                    wanted = begin  # the first row that is read
                groups.append(group)
            begin = end
        columns = [name for name in ("user", USER_ID, "items", HISTORY) if name in opened.schema_arrow.names]
        for rows in opened.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=columns):
            skipped, end = max(first - wanted, 0), min(stop - wanted, len(rows))
            if skipped < end:
                yield pa.Table.from_batches([rows.slice(skipped, end - skipped)])
            wanted += len(rows)
