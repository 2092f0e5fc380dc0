"""Pictures of the prepared set -> image vectors, by a pool of Ray Data actors, each picture only once ever."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from numpy.typing import NDArray

from components.errors import ConfigError, DataError
from components.features.cache import VectorCache
from components.features.image import (
    DESCRIPTORS,
    READY,
    ImageConfig,
    content_key,
    encode_contents,
    image_settings_key,
    make_encoder,
)
from components.features.pictures import MISSING
from components.schema import IMAGE, ITEMS_FILE
from pipelines.actor_pool import pool_options
from pipelines.stages import Progress
from pipelines.storage.exchange import Exchange, borrowed

BATCH_ITEMS: Final = 256  # pictures that are read at once
GROUPS_PER_ACTOR: Final = 4  # an actor starts for seconds: fewer row groups are not worth one more
LOCAL_PICTURES: Final = 2048  # so many are described here before the first actor would have started
COLUMNS: Final = ("key", "vector", "reason")

FloatTable = NDArray[np.float32]
Encoded = tuple[dict[str, FloatTable], dict[str, str]]
Encode = Callable[[Path, dict[int, list[int]], ImageConfig, str], Iterator[Encoded]]
logger = logging.getLogger(__name__)


@dataclass
class ImageTable:
    """Image vectors of a catalog.

    Attributes:
        vectors: (N + 1, d), zero for PAD and where an item has no usable picture.
        counts: items, those with a vector, and the others by reason; for the manifest.
        timing: ``images_encoded``, ``image_seconds`` and ``images_per_second``.
    """

    vectors: FloatTable
    counts: dict[str, Any]
    timing: dict[str, float] = field(default_factory=dict)


def image_table(
    prepared: Path,
    config: ImageConfig,
    cache_folder: Path,
    progress: Progress,
    *,
    gpu: bool = False,
    custom: Mapping[str, float] | None = None,
) -> ImageTable | None:
    """Vectors of the pictures in a prepared set; None where it has no column of pictures.

    Pictures are read from disk by who encodes them, one row group at a time; what is encoded is stored at once.

    Raises:
        ConfigError: the column holds vectors and `config` names an encoder, or the other way round.
        DataError: the column holds something else, or none of the pictures can be used.
    """
    table = picture_vectors(prepared / ITEMS_FILE, config, cache_folder, progress, gpu=gpu, custom=custom)
    if table is None:
        return None
    counts = table.counts
    logger.info("pictures of %s: %s", prepared, counts)
    if not counts["with_image"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts["absent"].items())
        raise DataError(
            f"images: none of the {counts['items']} items has a usable picture ({reasons}); check input.images, "
            "or remove the section `images`"
        )
    return table


def picture_vectors(
    file: Path,
    config: ImageConfig,
    cache_folder: Path,
    progress: Progress,
    *,
    gpu: bool = False,
    alone: bool = False,
    custom: Mapping[str, float] | None = None,
) -> ImageTable | None:
    """Vectors of the pictures in a table of items, although none may be usable; see `image_table`.

    With `alone` they are encoded in this process, without Ray: few are done before actors would have started.
    """
    kind = _column_type(file, config)
    if kind is None:
        return None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _ready(file)
    encode: Encode = _encode_here if alone else partial(_encode_groups, custom=custom)
    return _encoded(file, config, cache_folder, progress, gpu, encode)


def _column_type(file: Path, config: ImageConfig) -> pa.DataType | None:
    schema = pq.read_schema(file)
    if IMAGE not in schema.names:
        return None
    kind = schema.field(IMAGE).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise ConfigError(
            f"{file}: column {IMAGE!r} holds text; set input.item_columns.image: {IMAGE} to read it as paths, "
            "or name the pictures in input.images"
        )
    is_vectors = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_vectors and not pa.types.is_floating(kind.value_type):
        raise DataError(f"{file}: column {IMAGE!r} is of type {kind}; expected bytes or lists of floats")
    if is_vectors and config.encoder != READY:
        raise ConfigError(
            f"images.encoder: {config.encoder!r}, but the input holds vectors; set images.encoder: {READY}"
        )
    if is_vectors:
        return kind
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{file}: column {IMAGE!r} is of type {kind}; expected bytes or lists of floats")
    if config.encoder == READY:
        raise ConfigError(f"images.encoder: {READY!r} needs vectors in input.images, which holds pictures")
    return kind


def _ready(file: Path) -> ImageTable:
    """Vectors that the user brought; they were checked when they were read."""
    column = pq.read_table(file, columns=[IMAGE])[IMAGE].combine_chunks()
    known = np.asarray(column.is_valid())
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(int(known.sum()), -1)
    vectors = np.zeros((len(known) + 1, max(values.shape[1], 1)), np.float32)
    vectors[1:][known] = values
    absent = Counter({MISSING: int((~known).sum()), "zero vector": int((~values.any(axis=1)).sum())})
    return ImageTable(vectors, _counts(len(known), absent))


def _counts(items: int, absent: Counter[str]) -> dict[str, Any]:
    found = {reason: count for reason, count in sorted(absent.items()) if count}
    return {"items": items, "with_image": items - sum(found.values()), "absent": found}


def _encoded(
    file: Path, config: ImageConfig, cache_folder: Path, progress: Progress, gpu: bool, encode: Encode
) -> ImageTable:
    device = "cuda" if gpu else "cpu"
    cache = VectorCache(cache_folder, image_settings_key(config, device))
    keys, places = _keys(file)
    wanted = dict.fromkeys(key for key in keys if key)
    known = cache.load(list(wanted))
    groups: dict[int, list[int]] = {}  # row group -> places in it of pictures to encode, each picture once
    for key in wanted:
        if key not in known:
            group, place = places[key]
            groups.setdefault(group, []).append(place)
    missing = sum(map(len, groups.values()))
    progress.start(len(wanted), "pictures", len(known))
    reasons: dict[str, str] = {}
    started, done = time.perf_counter(), 0
    for vectors, failed in encode(file, groups, config, device):
        if vectors:
            cache.store(list(vectors), np.stack(list(vectors.values())))
        known |= vectors
        reasons |= failed
        done += len(vectors) + len(failed)
        rate = done / (time.perf_counter() - started)
        progress.advance(len(vectors) + len(failed), images_per_second=round(rate, 1))
    seconds = time.perf_counter() - started
    rate = missing / seconds if missing else 0.0
    timing = {"images_encoded": float(missing), "image_seconds": seconds, "images_per_second": rate}
    table = _gather(keys, known)
    absent = Counter(reasons.get(key, MISSING) for key in keys if key not in known)
    return ImageTable(table, _counts(len(keys), absent), timing)


def _gather(keys: list[str], known: dict[str, NDArray[np.float32]]) -> FloatTable:
    """(N + 1, d) vectors by item number, zero where unknown."""
    width = len(next(iter(known.values()))) if known else 1
    table = np.zeros((len(keys) + 1, width), np.float32)
    for row, key in enumerate(keys, start=1):
        if key in known:
            table[row] = known[key]
    return table


def _keys(file: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """The content key of every item's picture, ``""`` where it has none, and where each lies: (row group, place)."""
    keys: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    parquet = pq.ParquetFile(file)
    for group in range(parquet.num_row_groups):
        first = len(keys)
        for batch in parquet.iter_batches(BATCH_ITEMS, row_groups=[group], columns=[IMAGE]):
            for content in batch.column(0).to_pylist():
                key = content_key(content) if content else ""
                places.setdefault(key, (group, len(keys) - first))
                keys.append(key)
    return keys, places


class GroupEncoder:
    """An actor of the pool: makes the encoder once, then reads and encodes pictures group after group."""

    def __init__(self, file: Path, config: dict[str, Any], device: str, exchange: Exchange | None = None) -> None:
        with borrowed(exchange, file) as here:
            self.file = here
        self.config = ImageConfig.model_validate(config)
        self.encoder = make_encoder(self.config, device)

    def __call__(self, work: pa.Table) -> pa.Table:
        """(group, places) per row -> one row per picture: its key, and its vector or the reason why there is none."""
        rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for task in work.to_pylist():
            for contents in self._contents(task["group"], set(task["places"])):
                vectors, reasons = encode_contents(contents, self.encoder, self.config)
                rows["key"] += [content_key(content) for content in contents]
                rows["vector"] += [vectors.get(index) for index in range(len(contents))]
                rows["reason"] += [reasons.get(index, "") for index in range(len(contents))]
        types = {"key": pa.string(), "vector": pa.list_(pa.float32()), "reason": pa.string()}
        return pa.table({name: pa.array(values, types[name]) for name, values in rows.items()})

    def _contents(self, group: int, places: set[int]) -> Iterator[list[bytes]]:
        first = 0
        parquet = pq.ParquetFile(self.file)
        for batch in parquet.iter_batches(BATCH_ITEMS, row_groups=[group], columns=[IMAGE]):
            column = batch.column(0)
            yield [column[place].as_py() for place in range(len(column)) if first + place in places]
            first += len(column)


def _encode_here(file: Path, groups: dict[int, list[int]], config: ImageConfig, device: str) -> Iterator[Encoded]:
    if not groups:
        return  # an encoder takes seconds to load
    encoder = GroupEncoder(file, config.model_dump(), device)
    for group, places in groups.items():
        yield _unpack(encoder(pa.table({"group": [group], "places": [places]})))


def _encode_groups(
    file: Path,
    groups: dict[int, list[int]],
    config: ImageConfig,
    device: str,
    custom: Mapping[str, float] | None = None,
) -> Iterator[Encoded]:
    """Vectors by key, and reasons by key, of one row group after the other, in the order in which they are done."""
    if not groups:
        return
    if config.encoder == DESCRIPTORS and sum(map(len, groups.values())) <= LOCAL_PICTURES:
        yield from _encode_here(file, groups, config, device)
        return
    work = [pa.table({"group": [group], "places": [places]}) for group, places in groups.items()]
    encoded = ray.data.from_arrow(work).map_batches(
        GroupEncoder,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_args=(file.resolve(), config.model_dump(), device, Exchange.of(file.resolve())),
        **pool_options(device, len(groups), GROUPS_PER_ACTOR, custom),
    )
    for table in encoded.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield _unpack(cast(pa.Table, table))


def _unpack(table: pa.Table) -> Encoded:
    vectors: dict[str, NDArray[np.float32]] = {}
    reasons: dict[str, str] = {}
    for key, vector, reason in zip(*(table.column(name) for name in COLUMNS), strict=True):
        if vector.is_valid:
            vectors[key.as_py()] = vector.values.to_numpy().astype(np.float32)
        else:
            reasons[key.as_py()] = reason.as_py()
    return vectors, reasons
