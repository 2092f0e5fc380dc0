"""``distilrec stream … --to-blocks``: sizes of a stream's items as YAML that compression and search take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import yaml

from components.embedding_size.sizes import SIZES
from components.embedding_size.to_blocks import size_blocks
from components.errors import UserError
from components.schema import COUNT, ITEMS_FILE
from components.streaming import read_learner
from pipelines.cache import write_atomically

BLOCKS_FILE: Final = "blocks.yaml"


class _Plain(yaml.SafeDumper):
    """Writes the partition twice, where it is used twice, and no reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class WrittenBlocks:
    """What was written.

    Attributes:
        compression: the section ``student.compression``.
        text: the file.
    """

    compression: dict[str, Any]
    text: str


def write_blocks(served: Path, file: Path, dim: int) -> WrittenBlocks:
    """Write the partition of a finished stream's items.

    Boundaries count items by falling frequency, as students number them: they fit a log that keeps the same frequent
    items; of one that drops the rarest, the last block is shorter.

    Args:
        served: folder of the stream.
        file: what to write.
        dim: width of the student.

    Raises:
        UserError: the stream's method chooses no sizes.
    """
    learner = read_learner(served)
    if learner.items.sizes is None:
        raise UserError(f"{served}: {learner.method} chooses no sizes; stream esapn")
    counts = pl.read_parquet(served / ITEMS_FILE, columns=[COUNT])[COUNT].to_numpy()
    sizes = np.array(SIZES)[learner.items.sizes.numpy()]
    blocks = size_blocks(counts, sizes, dim)
    compression = {"boundaries": list(blocks.boundaries), "ranks": list(blocks.ranks), "output": "tied"}
    usual = {"num_blocks": 3, "factor": 4, "output": "tied"}
    document = {
        "student": {"dim": dim, "compression": compression},
        "search": {"spaces": [], "space": {"student.compression": [compression, usual]}},
    }
    lines = [
        "# Blocks of items by the sizes that ESAPN chose: their vectors are as wide, relative to `dim`.",
        *(
            f"# block {number}: items seen at least {frequency} times, mean size {size:g} of 128"
            for number, (frequency, size) in enumerate(zip(blocks.frequencies, blocks.sizes, strict=True), 1)
        ),
        "# `student` takes the partition; `search` tries it beside CpRec's own: take either section.",
    ]
    text = "\n".join(lines) + "\n" + yaml.dump(document, Dumper=_Plain, sort_keys=False, default_flow_style=None)
    write_atomically(file, text)
    return WrittenBlocks(compression, text)
