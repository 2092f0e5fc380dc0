"""Our training loop as one or several data-parallel workers (gloo, loopback), each pinned to a core of its own.

Rank 0 talks to the contest and starts the others; between rounds they sleep in the all-reduce of the next step.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from benchmarks.peers.distilrec import batches_of, prepare, run_loop
from benchmarks.peers.session import Session
from components.training.loop import World

LOOPBACK = "127.0.0.1"
PATIENCE = timedelta(hours=2)  # a worker waits that long for the contest to go on


def free_port() -> int:
    """A port that was free a moment ago, on the loopback interface."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def start_others(options: dict[str, Any]) -> list[subprocess.Popen[bytes]]:
    """The workers with rank 1 and above."""
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.peers.data_parallel",
                json.dumps({**options, "rank": rank, "core": options["cores"][rank]}),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for rank in range(1, options["workers"])
    ]


def main() -> None:
    session, options = Session.start()
    size, rank = options["workers"], options.get("rank", 0)
    others: list[subprocess.Popen[bytes]] = []
    if size > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        options.setdefault("port", free_port())
        if rank == 0:
            others = start_others(options)
        dist.init_process_group(
            "gloo", init_method=f"tcp://{LOOPBACK}:{options['port']}", rank=rank, world_size=size, timeout=PATIENCE
        )
    try:
        sequences, model = prepare(options)
        run_loop(session, model, batches_of(sequences, options), model.loss, World(rank, size))
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
