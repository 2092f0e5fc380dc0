"""Items per CPU-second of the text encoder against `SentenceTransformer.encode`, and whether the vectors are the same.

    python -m benchmarks.text_encoding --json FILE

Title, categories, brand and description of Amazon Scientific, all-MiniLM-L6-v2 for both, 256 tokens at most (the
library's default with this model), one pinned thread each, rounds interleaved. Our encoder computes in bf16 where the
processor has it; a second row shows it in fp32.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.environments import OURS
from benchmarks.peers.contest import Contender, compete, document
from benchmarks.peers.table import console, logs, parser, show, write

AUTO, FULL, THEIRS = "distilrec", "distilrec, fp32", "SentenceTransformer.encode"
SIDES = {AUTO: ("ours", "auto"), FULL: ("ours", "fp32"), THEIRS: ("theirs", "")}


def contenders(settings: dict[str, object], folder: Path) -> list[Contender]:
    """Both of ours and the library, which is compared with our default."""
    made = []
    for name, (side, precision) in SIDES.items():
        vectors = str(folder / f"{side}{precision}.npy")
        options = {**settings, "side": side, "precision": precision, "vectors": vectors}
        made.append(Contender(name, "text_encoding", OURS, options, 1, AUTO if name == THEIRS else None))
    return made


def cosines(folder: Path) -> dict[str, float]:
    """The smallest cosine of any text's vector between each of ours and the library's."""
    theirs = np.load(folder / "theirs.npy", allow_pickle=False)
    found = {}
    for name, (side, precision) in SIDES.items():
        ours = np.load(folder / f"{side}{precision}.npy", allow_pickle=False)
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        found[name] = float(((ours * theirs).sum(axis=1) / norms).min())
    return found


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--texts", type=int, default=512, help="texts per round")
    options = made.parse_args(arguments)
    items = options.data / "amazon-scientific" / "items.parquet"
    settings = {"items": str(items), "texts": options.texts, "seed": options.seed, "core": options.core}
    with tempfile.TemporaryDirectory() as folder:
        results = compete(contenders(settings, Path(folder)), options.rounds, logs("text-encoding"), console().print)
        measured = document("text_encoding", settings, results, unit="texts")
        measured["smallest_cosine"] = cosines(Path(folder))
    show(measured, "Item texts to vectors, Amazon Scientific")
    for name, value in measured["smallest_cosine"].items():
        console().print(f"{name}: smallest cosine to the library's vectors {value:.5f}", markup=False)
    write(measured, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
