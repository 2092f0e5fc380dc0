"""The best 100 items for all users of MovieLens-1M, ours against the peers' own calls, in users per CPU-second.

    python -m benchmarks.batch_recommend --json FILE

A SASRec of equal size (d 64, 2 blocks, 2 heads, length 50) ranks all 3,416 items for all 6,040 users. Ours is what a
worker of `distilrec batch` does between reading and writing its files; RecTools `model.recommend` with `filter_viewed`;
RecBole `full_sort_topk` (which leaves out nothing of a sequence model's history) and `id2token`. The weights are as
they were drawn, RecTools' after one step: they do not change the cost. One pinned thread each.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.environments import OURS
from benchmarks.peers.contest import CACHE, Contender, compete, document
from benchmarks.peers.dataset import write_neutral
from benchmarks.peers.table import add_peers, console, installed, logs, parser, show, write
from benchmarks.training_speed import SIZES

PEERS = {"rectools": ("RecTools", "pre", "relu"), "recbole": ("RecBole", "post", "gelu")}
OURS_PER_ROUND = 3


def contenders(options: dict[str, Any], peers: list[str]) -> list[Contender]:
    """Ours in the layout of each chosen peer, fast and reproducible, and the peers."""
    made = []
    for peer in peers:
        shown, norm, activation = PEERS[peer]
        layout = {**options, "norm": norm, "activation": activation}
        ours = f"distilrec, norm {'before' if norm == 'pre' else 'after'}"
        made += [
            Contender(ours, OURS, OURS, layout, OURS_PER_ROUND),
            Contender(f"{ours}, reproducible", OURS, OURS, {**layout, "reproducible": True}, 1),
            Contender(shown, peer, peer, options, 1, ours),
        ]
    return made


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--length", type=int, default=50)
    made.add_argument("-k", type=int, default=100, help="items per user")
    made.add_argument("--batch", type=int, default=256, help="users per batch of the peers")
    add_peers(made, tuple(PEERS))
    options = made.parse_args(arguments)
    data = write_neutral(options.data / "ml1m-multimodal", CACHE / "ml1m.npz")
    peers, missing = installed(options.peers)
    if missing:
        console().print(f"not installed and left out: {', '.join(missing)}; run python -m benchmarks.environments")
    settings = {
        **SIZES,
        "task": "recommend",
        "data": str(data),
        "length": options.length,
        "seed": options.seed,
        "core": options.core,
        "evaluation_batch": options.batch,
        "list": options.k,
    }
    results = compete(contenders(settings, peers), options.rounds, logs("batch-recommend"), console().print)
    measured = document("batch_recommend", settings, results, unit="users")
    show(measured, f"The best {options.k} items for all users, MovieLens-1M, length {options.length}")
    write(measured, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
