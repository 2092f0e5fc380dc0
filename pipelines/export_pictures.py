"""Pictures of the prepared set -> thumbnails in the artifact, so that an endpoint can show its items."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components.artifacts.pictures import GROUP_ROWS, PICTURES_FILE, SCHEMA
from components.errors import DataError
from components.features.pictures import UnusablePictureError, decode
from components.schema import IMAGE, ITEM, ITEMS_FILE

SIDE: Final = 200  # pixels of the longer side at most; smaller pictures are not enlarged
QUALITY: Final = 78
MAX_PIXELS: Final = 64_000_000
MAX_BYTES: Final = 256 << 20
NO_ROOM: Final = "no room left"


def write_pictures(
    prepared: Path, folder: Path, *, required: bool = False, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Write a thumbnail of every item that has a picture; the most frequent items first, while there is room.

    Args:
        prepared: a prepared set.
        folder: the artifact.
        required: fail where there is no picture.
        max_bytes: of all thumbnails together.

    Returns:
        For the manifest: ``{"pictures": n, "bytes": b, "absent": {reason: count}}``, or ``{"none": the reason}``.

    Raises:
        DataError: pictures are required and there is none that can be used.
    """
    counts: Counter[str] = Counter()
    file = prepared / ITEMS_FILE
    table = _thumbnails(file, counts, max_bytes) if _has_bytes(file) else SCHEMA.empty_table()
    if not len(table):
        reason = ", ".join(f"{count} {why}" for why, count in sorted(counts.items())) or "the run reads no pictures"
        if required:
            raise DataError(f"export.pictures: there is none to export ({reason}); set input.images, or false here")
        return {"none": reason}
    pq.write_table(table, folder / PICTURES_FILE, row_group_size=GROUP_ROWS, compression="none")
    size = (folder / PICTURES_FILE).stat().st_size
    return {"pictures": len(table), "bytes": size, "absent": dict(sorted(counts.items()))}


def _has_bytes(file: Path) -> bool:
    """Whether the column of pictures is there and holds encoded ones; it may hold vectors that were made elsewhere."""
    schema = pq.read_schema(file)
    if IMAGE not in schema.names:
        return False
    kind = schema.field(IMAGE).type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _thumbnails(file: Path, counts: Counter[str], max_bytes: int) -> pa.Table:
    """(item, picture) by item number; `counts` tells why the others have none."""
    items: list[int] = []
    contents: list[bytes] = []
    size, full = 0, False
    for item, content in _contents(file):
        try:
            small = b"" if full and content else thumbnail(content)
        except UnusablePictureError as error:
            counts[error.reason] += 1
            continue
        size += len(small)
        full = full or size > max_bytes
        if full:
            counts[NO_ROOM] += 1
        else:
            items.append(item)
            contents.append(small)
    return pa.table([items, contents], schema=SCHEMA)


def _contents(file: Path) -> Iterator[tuple[int, bytes | None]]:
    for batch in pq.ParquetFile(file).iter_batches(GROUP_ROWS, columns=[ITEM, IMAGE]):
        yield from zip(batch.column(ITEM).to_pylist(), batch.column(IMAGE).to_pylist(), strict=True)


def thumbnail(content: bytes | None, side: int = SIDE) -> bytes:
    """An encoded picture as a small WebP.

    Raises:
        UnusablePictureError: it is missing or cannot be decoded.
    """
    image = decode(content, max_pixels=MAX_PIXELS, side=side)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    image.save(target, "WEBP", quality=QUALITY, method=4)
    return target.getvalue()
