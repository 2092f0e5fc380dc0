"""Training throughput and memory of SASRec on MovieLens-1M, ours against the peers.

    python -m benchmarks.environments                                     once: installs the peers
    python -m benchmarks.training_speed --length 50 200 --json FILE
    python -m benchmarks.training_speed --length 50 --rounds 1 --steps 2  a quick look

Leave-one-out, d 64, 2 blocks, 2 heads, batch 128, dropout 0.2 (attention weights included), full softmax, fp32,
feed-forward width 64, Adam. A *target* is one position that contributes to the loss: every position of a sequence for
ours, RecTools and RePlay, one per augmented row for RecBole and WarpRec. One pinned thread each, CPU time of the steps
alone. A peer is compared with our model in its own layout: layer norm before the sub-layers and ReLU (RecTools,
RePlay), or after them and GELU (RecBole, WarpRec).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.environments import OURS
from benchmarks.peers.contest import CACHE, Contender, compete, document
from benchmarks.peers.dataset import HELD_OUT, read_neutral, write_neutral
from benchmarks.peers.table import add_peers, console, installed, logs, parser, show, write

SIZES: dict[str, Any] = {"dim": 64, "layers": 2, "heads": 2, "inner": 64, "dropout": 0.2, "batch": 128}
STEPS = {50: 25, 200: 8}  # steps of a peer per round; RecTools takes about a second each at length 50, four at 200
BEFORE = "distilrec, norm before"
AFTER = "distilrec, norm after"
CONTENDERS: dict[str, tuple[str, dict[str, Any], str]] = {  # name: environment, extra options, compared with
    "RecTools": ("rectools", {}, BEFORE),
    "RePlay": ("replay", {}, BEFORE),
    "RePlay, bucketed encoder": ("replay", {"bucketed": True}, BEFORE),
    "RecBole": ("recbole", {}, AFTER),
    "WarpRec": ("warprec", {}, AFTER),
}


def contenders(options: dict[str, Any], peers: list[str], steps: int, epoch_steps: int) -> list[Contender]:
    """Ours in the layouts that the chosen peers need, and the peers.

    Ours runs whole epochs per round: its batches differ in length, and an epoch holds all of them.
    """
    theirs = [
        Contender(name, environment, environment, {**options, **extra}, steps, against)
        for name, (environment, extra, against) in CONTENDERS.items()
        if environment in peers
    ]
    layouts = {BEFORE: {"norm": "pre", "activation": "relu"}, AFTER: {"norm": "post", "activation": "gelu"}}
    needed = {contender.against for contender in theirs} or {BEFORE}
    ours = [
        Contender(name, OURS, OURS, {**options, **layout}, epoch_steps)
        for name, layout in layouts.items()
        if name in needed
    ]
    return [*ours, *theirs]


def run_length(length: int, options: argparse.Namespace, data: Path, peers: list[str]) -> dict[str, Any]:
    """One contest at one length."""
    settings = {
        **SIZES,
        "task": "train",
        "data": str(data),
        "length": length,
        "seed": options.seed,
        "core": options.core,
        "evaluation_batch": 256,
    }
    users = int((read_neutral(data).lengths - HELD_OUT >= 2).sum())
    epoch_steps = options.steps or -(-users // SIZES["batch"])
    steps = options.steps or STEPS.get(length, 8)
    results = compete(contenders(settings, peers, steps, epoch_steps), options.rounds, logs(f"training-{length}"), note)
    return document("training_speed", settings, results)


def note(text: str) -> None:
    console().print(text, style="dim", markup=False)


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=3)
    made.add_argument("--length", type=int, nargs="+", default=[50, 200])
    made.add_argument("--steps", type=int, default=None, help="steps per round of everybody; default: see STEPS")
    add_peers(made, ("rectools", "replay", "recbole", "warprec"))
    options = made.parse_args(arguments)
    data = write_neutral(options.data / "ml1m-multimodal", CACHE / "ml1m.npz")
    peers, missing = installed(options.peers)
    if missing:
        note(f"not installed and left out: {', '.join(missing)}; run python -m benchmarks.environments")
    documents = []
    for length in options.length:
        documents.append(run_length(length, options, data, peers))
        show(documents[-1], f"SASRec on MovieLens-1M, length {length}")
        write(documents, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
