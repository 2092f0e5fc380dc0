"""Stage ``prepare``: logs -> the prepared set. One plan; the partitions lie in this process or in a Ray cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.data.audit import audit, check_audit, summarize
from components.data.catalog import ItemTable, number_items, numbered_items, read_items
from components.data.chunks import cut_chunks
from components.data.cleaning import PrepareConfig, check_rejected
from components.data.kcore import Core, count_items, find_core, keep_core
from components.data.partition import DUPLICATES, LOW_RATED, encode, item_ids, row_counts
from components.data.readers import InputConfig, Log, estimate_rows, open_log, rejected_counts, rejected_example
from components.data.sequence_files import write_parts
from components.data.splits import BUCKETS, Cuts, Shares, find_time, split, time_bounds, time_histogram
from components.data.tally import Tally
from components.data.timestamps import SECOND, parse_time
from components.data.users import UserFile, open_users, read_users
from components.errors import DataError
from components.schema import (
    COUNT,
    IMAGE,
    ITEM_ID,
    ITEMS_FILE,
    MANIFEST_FILE,
    RATING,
    REJECTED_FOLDER,
    SCHEMA_VERSION,
    SEQUENCES_FOLDER,
    TEXT,
    TIMESTAMP,
    USER,
    USER_ID,
    USERS_FILE,
)
from pipelines.partitions import Partitions, read_locally, tally
from pipelines.prepare_ratings import prepare_ratings
from pipelines.stages import EXTRA_MANIFEST_FILE, Progress

if TYPE_CHECKING:
    from pipelines.stages import StageContext

AUDIT_FILE = "audit.json"
FINGERPRINTED = 1 << 16  # users whose rows are hashed at once
IMAGE_GROUP = 256  # items whose pictures lie together in the prepared set
SPLIT_COUNTS = ("training_interactions", "valid_cases", "test_cases", "items_without_training")
Counts = dict[str, Any]


def run(context: StageContext) -> None:
    """Prepare the run's log, or that of the pre-training domain `context.name`.

    Raises:
        DataError: see `prepare`, or the catalog has a single item.
    """
    source = context.config.source(context.name)
    if source.prepare.task == "ratings":
        counts = prepare_ratings(source.data, source.input, source.prepare, context.folder, context.progress)
        _write_json(context.folder / EXTRA_MANIFEST_FILE, counts)
        return
    custom = context.config.cluster.placement.data
    extra = prepare(source.data, source.input, source.prepare, context.folder, context.progress, custom)
    if extra["num_items"] < 2:
        raise DataError(
            f"of {extra['rows_read']:,} rows a single item is left, and nothing to rank it against; bring a log of "
            f"more items, or lower prepare.min_interactions_per_item ({source.prepare.min_interactions_per_item})"
        )
    _write_json(context.folder / EXTRA_MANIFEST_FILE, extra)


def prepare(
    data: str,
    config_input: InputConfig,
    config: PrepareConfig,
    folder: Path,
    progress: Progress,
    custom: Mapping[str, float] | None = None,
) -> Counts:
    """Write the prepared set of a log into `folder`, all but its manifest.

    Args:
        data: the root that the paths of `config_input` lie below.
        config_input: where the log and the items are and how they are written.
        config: how they are cleaned, filtered and split.
        folder: where the set goes; must exist.
        progress: told about rows and steps.
        custom: resources that say where tasks run.

    Returns:
        Counts of every step, for the manifest.

    Raises:
        DataError: the input cannot be used; the message names the file, the column or the filter.
    """
    folder = folder.absolute()  # tasks run elsewhere
    log = open_log(data, config_input)
    user_file = open_users(data, config_input)
    _check_columns(log, config)
    partitions, counts = _read(log, config, folder, progress, custom)
    items = _catalog(partitions, data, config_input, progress)
    counts["items"] = {**items.counts, "text_columns": items.text_columns}
    partitions = partitions.transform(encode, items.frame[ITEM_ID].to_arrow(compat_level=pl.CompatLevel.oldest()))
    partitions, core = _filter(partitions, items, config, progress, counts)
    if config.chunk_length is not None:
        partitions = _cut(partitions, config.chunk_length, counts)
    progress.note("splitting and auditing")
    how = _how_to_split(partitions, config)
    partitions = partitions.transform(split, how)
    summary = tally(partitions, summarize, len(core.alive), partitions.num_ranges)
    report = audit(summary, core.alive, config.split)
    _write_json(folder / AUDIT_FILE, {**report, "items": items.counts})
    check_audit(report, config.audit)
    progress.note("writing")
    if not summary.dense("train", len(core.alive)).any():
        remedy = {"global_time": "move valid_from to a later time", "sequences": "lower test_fraction"}
        raise DataError(f"prepare.split: no interaction is left to train on; {remedy.get(config.split, 'bring more')}")
    _write(partitions, items, user_file, core, summary, folder, counts)
    counts["split"] = {"kind": config.split, **_seconds(how), **{name: report[name] for name in SPLIT_COUNTS}}
    return counts


def write_standalone_manifest(folder: Path, counts: Counts) -> None:
    """Make `folder` loadable as a `PreparedSet` outside a run; in a run the executor writes the manifest."""
    _write_json(folder / MANIFEST_FILE, {**counts, "schema_version": SCHEMA_VERSION, "stage": "prepare"})


# Steps of the plan


def _check_columns(log: Log, config: PrepareConfig) -> None:
    """Refuse rules that need columns which the log lacks."""
    has = ", ".join(log.columns)
    if config.min_rating is not None and RATING not in log.columns:
        raise DataError(f"prepare.min_rating needs a rating column; the log has {has}: map input.columns.rating")
    if config.split == "global_time" and TIMESTAMP not in log.columns:
        raise DataError(
            f"prepare.split: global_time needs timestamps; the log has {has}: "
            "map input.columns.timestamp or take split: leave_one_out"
        )


def _read(
    log: Log, config: PrepareConfig, folder: Path, progress: Progress, custom: Mapping[str, float] | None
) -> tuple[Partitions, Counts]:
    """Read, validate and gather the log where it fits."""
    estimate = estimate_rows(log)
    progress.start(estimate, "rows")
    rejected = folder / REJECTED_FOLDER
    partitions: Partitions
    if estimate <= config.fast_path_rows:
        partitions = read_locally(log, config, rejected, progress)
    else:
        from pipelines.ray_partitions import read_with_ray  # the fast path starts without Ray

        partitions = read_with_ray(log, config, estimate, rejected, progress, custom)
    found = tally(partitions, row_counts)
    dropped = {name: found.scalar(name) for name in (DUPLICATES, LOW_RATED)}
    reasons = rejected_counts(folder)
    read = found.scalar("rows") + sum(dropped.values()) + sum(reasons.values())
    check_rejected(read, reasons, config.max_rejected, rejected_example(folder))
    counts = {"rows_read": read, "rejected": reasons, **dropped}
    if not found.scalar("rows"):
        raise DataError(f"prepare.min_rating: no row is rated at least {config.min_rating}; lower it")
    return partitions, counts


def _catalog(partitions: Partitions, data: str, config: InputConfig, progress: Progress) -> ItemTable:
    """Every item of the log, ordered by id, with what the item file says of it."""
    progress.note("reading items")
    tables = list(partitions.collect(item_ids))
    ids = pl.Series(ITEM_ID, pa.concat_tables(tables)[ITEM_ID], dtype=pl.String).unique().sort()
    return read_items(data, config, ids)


def _filter(
    partitions: Partitions, items: ItemTable, config: PrepareConfig, progress: Progress, counts: Counts
) -> tuple[Partitions, Core]:
    """Drop items without text where asked, then the k-core."""
    candidates: NDArray[np.bool_] = np.ones(items.frame.height, np.bool_)
    if config.drop_items_without_text:
        candidates = items.frame[TEXT].to_numpy() != ""
        counts["dropped_items_without_text"] = int((~candidates).sum())
        if not candidates.any():
            raise DataError("prepare.drop_items_without_text: no item has a text; set input.items and text_columns")
    rounds: list[int] = []

    def count(alive: NDArray[np.bool_]) -> NDArray[np.int64]:
        found = tally(partitions, count_items, alive, config.min_interactions_per_user)
        progress.note(f"k-core, round {len(rounds) + 1}")
        rounds.append(found.scalar("items"))
        return found.dense("items", len(alive))

    core = find_core(count, candidates, config.min_interactions_per_item)
    counts["k_core"] = {"interactions_per_round": rounds, "items_per_round": core.items_per_round}
    if not core.alive.any():
        raise DataError(
            f"the k-core (prepare.min_interactions_per_user: {config.min_interactions_per_user}, "
            f"prepare.min_interactions_per_item: {config.min_interactions_per_item}) leaves nothing of "
            f"{counts['rows_read']:,} rows after {len(rounds)} rounds; lower these numbers"
        )
    return partitions.transform(keep_core, core.alive, config.min_interactions_per_user), core


def _cut(partitions: Partitions, chunk: int, counts: Counts) -> Partitions:
    """Sequences of at most `chunk` items; what is left out is counted."""
    before = tally(partitions, row_counts).scalar("rows")
    cut = partitions.transform(cut_chunks, chunk)
    found = tally(cut, row_counts)
    counts["chunks"] = {"sequences": found.scalar("users"), "left_out": before - found.scalar("rows")}
    if not found.scalar("rows"):
        raise DataError(
            f"prepare.chunk_length: {chunk} leaves nothing, as no user has two interactions; chunks of one are left out"
        )
    return cut


def _how_to_split(partitions: Partitions, config: PrepareConfig) -> Cuts | Shares | None:
    """The points in time of a global split: given, or found so that the shares hold; or shares of the sequences."""
    if config.split == "sequences":
        return Shares(config.valid_fraction, config.test_fraction)
    if config.split == "leave_one_out":
        return None
    if config.valid_from is not None and config.test_from is not None:
        valid_from, test_from = parse_time(config.valid_from), parse_time(config.test_from)
        return Cuts(int(valid_from or 0), int(test_from or 0))
    seconds, _ = tally(partitions, time_bounds).pairs("bounds")
    total = tally(partitions, row_counts).scalar("rows")

    def histogram(low: int, width: int) -> tuple[int, NDArray[np.int64]]:
        found = tally(partitions, time_histogram, low, width)
        return found.scalar("before"), found.dense("times", BUCKETS)

    shares = (1 - config.valid_fraction - config.test_fraction, 1 - config.test_fraction)
    low, high = int(seconds[0]), int(seconds[-1])
    valid, test = (find_time(histogram, low, high, round(share * total)) for share in shares)
    return Cuts(valid * SECOND, test * SECOND)


def _write(
    partitions: Partitions,
    items: ItemTable,
    user_file: UserFile | None,
    core: Core,
    summary: Tally,
    folder: Path,
    counts: Counts,
) -> None:
    """Number items and users, write the files, and count what was written."""
    train_counts = summary.dense("train", len(core.alive))
    numbers = number_items(train_counts, core.alive)
    per_range = summary.dense("users", partitions.num_ranges)
    first_user = 1 + np.concatenate([[0], np.cumsum(per_range)[:-1]])
    catalog = numbered_items(items.frame, numbers, train_counts)
    # Small row groups where there are pictures: whoever encodes them reads one group at a time.
    catalog.write_parquet(folder / ITEMS_FILE, row_group_size=IMAGE_GROUP if IMAGE in catalog.columns else None)
    written = tally(partitions, write_parts, numbers, first_user, folder / SEQUENCES_FOLDER)
    users = _write_users(user_file, folder, counts)
    interactions = summary.scalar("interactions")
    size = {"users": int(per_range.sum()), "num_items": catalog.height, "interactions": interactions}
    density = interactions / (size["users"] * size["num_items"])
    counts.update(size, density=round(density, 9), fingerprint=_fingerprint(written, catalog, users))


def _write_users(file: UserFile | None, folder: Path, counts: Counts) -> pl.DataFrame | None:
    """Write what the user file says about the users of the sequences; nothing where the input has none."""
    if file is None:
        return None
    tables = [pl.read_parquet(part, columns=[USER, USER_ID]) for part in (folder / SEQUENCES_FOLDER).glob("*.parquet")]
    table = read_users(file, pl.concat(tables).sort(USER))
    table.frame.write_parquet(folder / USERS_FILE)
    counts["user_file"] = table.counts
    return table.frame


def _fingerprint(written: Tally, catalog: pl.DataFrame, users: pl.DataFrame | None) -> str:
    """Identity of the prepared data: does not depend on the partitions, nor on the path the data took."""
    digest = hashlib.sha256(str(written.scalar("fingerprint")).encode())
    digest.update(json.dumps(catalog.select(ITEM_ID, COUNT, TEXT).rows(), ensure_ascii=False).encode())
    if users is not None:  # in slices: there may be many more users than items
        digest.update(json.dumps(users.columns).encode())
        for part in users.iter_slices(FINGERPRINTED):
            digest.update(json.dumps(part.rows(), ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def _seconds(how: Cuts | Shares | None) -> dict[str, int]:
    return {name: value // SECOND for name, value in asdict(how).items()} if isinstance(how, Cuts) else {}


def _write_json(path: Path, value: Counts) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
