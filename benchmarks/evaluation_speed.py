"""Full-ranking evaluation of all users of MovieLens-1M, ours against the peers, in users per CPU-second.

    python -m benchmarks.evaluation_speed --json FILE

A SASRec of equal size (d 64, 2 blocks, 2 heads, length 50) ranks all 3,416 items for all 6,040 users; Recall, NDCG and
MRR at 5, 10 and 20; seen items are not left out. Each library by its own documented way: RecTools `recommend` and
`calc_metrics`, RePlay `Trainer.validate` with its metrics callback, RecBole `Trainer.evaluate` in full-sort mode. The
weights are as they were drawn: they do not change the cost. One pinned thread each.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.environments import OURS
from benchmarks.peers.contest import CACHE, Contender, compete, document
from benchmarks.peers.dataset import write_neutral
from benchmarks.peers.table import add_peers, console, installed, logs, parser, show, write
from benchmarks.training_speed import SIZES

LAYOUTS = {"pre": "distilrec, norm before", "post": "distilrec, norm after"}
PEERS = {"rectools": ("RecTools", "pre"), "replay": ("RePlay", "pre"), "recbole": ("RecBole", "post")}
OURS_PER_ROUND = 3


def contenders(options: dict[str, Any], peers: list[str]) -> list[Contender]:
    """Ours in the layouts that the chosen peers need, and the peers."""
    chosen = {name: PEERS[name] for name in peers}
    norms = sorted({norm for _, norm in chosen.values()} or {"pre"})
    ours = [
        Contender(LAYOUTS[norm], OURS, OURS, {**options, "norm": norm, "activation": activation}, OURS_PER_ROUND)
        for norm, activation in (("pre", "relu"), ("post", "gelu"))
        if norm in norms
    ]
    theirs = [Contender(shown, name, name, options, 1, LAYOUTS[norm]) for name, (shown, norm) in chosen.items()]
    return [*ours, *theirs]


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--length", type=int, default=50)
    made.add_argument("--batch", type=int, default=256, help="users per batch of the peers")
    add_peers(made, tuple(PEERS))
    options = made.parse_args(arguments)
    data = write_neutral(options.data / "ml1m-multimodal", CACHE / "ml1m.npz")
    peers, missing = installed(options.peers)
    if missing:
        console().print(f"not installed and left out: {', '.join(missing)}; run python -m benchmarks.environments")
    settings = {
        **SIZES,
        "task": "evaluate",
        "data": str(data),
        "length": options.length,
        "seed": options.seed,
        "core": options.core,
        "evaluation_batch": options.batch,
    }
    results = compete(contenders(settings, peers), options.rounds, logs("evaluation"), console().print)
    measured = document("evaluation_speed", settings, results, unit="users")
    show(measured, f"Full ranking of all users, MovieLens-1M, length {options.length}")
    write(measured, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
