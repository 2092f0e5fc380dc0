"""Every student against the same model in RecBole, RecTools, RePlay and WarpRec: training speed, memory, quality.

    python -m benchmarks.students --json FILE                            everything; hours, most of them RecBole's
    python -m benchmarks.students speed --tables bce gru4rec             only these tables
    python -m benchmarks.students quality --data-sets amazon-scientific --budget 120
    python -m benchmarks.students speed --rounds 1 --steps 2 --seconds 1 --tables bce      a quick look

Peers that are not there yet are installed first, each into an environment of its own (`benchmarks.environments`).

Speed: MovieLens-1M, length 50, d 64, 128 sequences a batch; a peer that makes a row of every target gets batches of as
many targets as ours have on average. Fresh processes, one pinned thread each, rounds interleaved. Quality: the same
CPU-seconds of training for all, the same users, items and metric functions; see `benchmarks.student_quality`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import environments, student_quality, student_speed
from benchmarks.peers.contest import CACHE
from benchmarks.peers.dataset import write_neutral
from benchmarks.peers.matches import ABSENT, LENGTH, NAMES, QUALITY, SPEED, check_titles, tables
from benchmarks.peers.table import add_peers, console, installed, parser, show, write

SPEED_SET = "ml1m-multimodal"
QUALITY_SETS = (SPEED_SET, "amazon-scientific", "amazon-instruments")


def arguments_parser() -> argparse.ArgumentParser:
    """All options."""
    made = parser(__doc__, rounds=3)
    made.add_argument("what", nargs="*", metavar="WHAT", help="speed, quality; default: both")
    made.add_argument(
        "--tables", nargs="+", default=[], metavar="PART", help="tables whose title has one of these parts"
    )
    made.add_argument("--steps", type=int, default=None, help="steps of ours per round of speed; default: an epoch")
    made.add_argument("--seconds", type=float, default=15.0, help="CPU-seconds of a peer per round of speed")
    made.add_argument("--budget", type=float, default=300.0, help="CPU-seconds of training per side of quality")
    made.add_argument("--shares", type=int, default=6, help="rankings in that time")
    made.add_argument("--data-sets", nargs="+", default=list(QUALITY_SETS), metavar="NAME", help="folders below --data")
    add_peers(made, tuple(NAMES))
    return made


def install(peers: Sequence[str]) -> list[str]:
    """Build what is missing; returns the peers that are there."""
    missing = installed(list(peers))[1]
    if missing:
        environments.main(missing)
    there, missing = installed(list(peers))
    for name in missing:
        note(f"left out, not installed: {NAMES[name]}; `python -m benchmarks.environments {name}` says why")
    return there


def note(text: str) -> None:
    console().print(text, style="dim", markup=False)


def neutral_set(options: argparse.Namespace, name: str) -> Path:
    return write_neutral(options.data / name, CACHE / f"{name}.npz")


def speed(options: argparse.Namespace, peers: Sequence[str], documents: dict[str, list[Any]]) -> None:
    """All tables of speed; what is done is written after each."""
    data, told = neutral_set(options, SPEED_SET), {"seed": options.seed, "core": options.core}
    for matches in tables(SPEED, options.tables, peers):
        limits = options.rounds, options.steps, options.seconds
        documents["speed"].append(student_speed.measure(matches, data, told, *limits, note))
        show(documents["speed"][-1], f"{matches[0].title} (MovieLens-1M, length {LENGTH})")
        write(documents, options.json)


def quality(options: argparse.Namespace, peers: Sequence[str], documents: dict[str, list[Any]]) -> None:
    """All sets and students of quality; what is done is written after each."""
    told, limits = {"seed": options.seed, "core": options.core}, (options.budget, options.shares)
    for data in [neutral_set(options, name) for name in options.data_sets]:
        for matches in tables(QUALITY, options.tables, peers):
            documents["quality"].append(student_quality.train_and_rank(matches, data, told, *limits, note))
            write(documents, options.json)
    if documents["quality"]:
        student_quality.show(documents["quality"])


COMPARISONS = {"speed": (speed, SPEED), "quality": (quality, QUALITY)}


def main(arguments: list[str] | None = None) -> int:
    made = arguments_parser()
    options = made.parse_args(arguments)
    unknown = [name for name in options.what if name not in COMPARISONS]
    if unknown:
        made.error(f"unknown comparison {unknown[0]!r}; expected: {', '.join(COMPARISONS)}")
    counts = [options.shares, options.rounds, 1 if options.steps is None else options.steps]
    if min(options.budget, options.seconds) <= 0 or min(counts) < 1:
        made.error("expected --budget and --seconds above 0, and --shares, --rounds and --steps of at least 1")
    wanted = {name: COMPARISONS[name] for name in options.what or COMPARISONS}
    try:
        check_titles(options.tables, [match for _, matches in wanted.values() for match in matches])
    except ValueError as error:
        made.error(f"--tables: {error}")
    peers = install(options.peers)
    documents: dict[str, list[Any]] = {name: [] for name in wanted}
    for run, _ in wanted.values():
        run(options, peers, documents)
    if not any(documents.values()):
        note("nothing was compared: no chosen peer has a chosen table")
        return 1
    for name, reason in ABSENT.items():
        note(f"not compared: {name}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
