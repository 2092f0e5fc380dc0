"""Memory of recommending to many users from a catalog of one million items: it must not grow with the users.

    python -m benchmarks.batch_memory

An untrained SASRec (d 64, 2 blocks, length 50) ranks all items, 40 items of history, the best 100 each, in a process of
its own for every number of users. One thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers.contest import ONE_THREAD
from benchmarks.peers.distilrec import sasrec, write_artifact
from benchmarks.peers.session import peak_megabytes, reset_peak
from benchmarks.peers.table import console
from components.bulk import BulkRecommender, Histories
from components.model import Catalog
from components.students import STUDENTS

SIZES = {"dim": 64, "layers": 2, "heads": 2, "inner": 64, "length": 50, "dropout": 0.2}
LENGTH, K = 40, 100


def measure(folder: Path, users: int) -> str:
    """What one worker needs for `users` users that it is handed at once."""
    torch.set_num_threads(1)
    recommender = BulkRecommender(folder)
    loaded = peak_megabytes()
    reset_peak()
    items = np.random.default_rng(0).integers(1, recommender.num_items + 1, users * LENGTH).astype(np.int32)
    histories = Histories(items, np.arange(users + 1) * LENGTH, np.zeros(users, np.int64))
    began = time.process_time()
    recommender.recommend(histories, K)
    rate = users / (time.process_time() - began)
    return (
        f"{users:,} users: {loaded:,.0f} MB to load, {peak_megabytes():,.0f} MB while it ranks, {rate:,.0f} users/CPU-s"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--artifact", type=Path, help="measure this one, in this process")
    options = parser.parse_args(arguments)
    if options.artifact:
        for users in options.users:
            console().print(measure(options.artifact, users), highlight=False)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(options.items, 0, np.zeros(options.items + 1, np.int64))
        write_artifact(Path(folder), STUDENTS["sasrec"].make(catalog, sasrec(SIZES)), SIZES)
        for users in options.users:
            command = ["-m", "benchmarks.batch_memory", "--artifact", folder, "--users", str(users)]
            subprocess.run([sys.executable, *command], check=True, env={**os.environ, **ONE_THREAD})
    return 0


if __name__ == "__main__":
    sys.exit(main())
