"""What CpRec saves where the catalog is large: a training step, a request of batch 1, bytes.

    python -m benchmarks.large_catalog --json FILE
    python -m benchmarks.large_catalog --task answer --items 500000 --json FILE

NextItNet of width 512 on synthetic sequences whose items are drawn with probability 1 / rank (speed only: nothing is
learnt). `full` has an item table for the input and one for the output, as the paper's base model; `tied` has one for
both, as our students; `compressed` is Bio-Ab with the blocks that agree with the paper's TikTok columns; `int8` the
same, stored in int8; `narrow` is Bio-Ab with four blocks, each of which ends at a fifth of where the next one does, of
widths 512, 128, 32 and 8: smaller and faster, and nothing is known of its quality. Requests go through the
scorer of the endpoint; of a compressed model it visits blocks by branch and bound, and its answers are compared with
those of scoring all items. One pinned thread each, interleaved, CPU time.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.environments import OURS
from benchmarks.peers.contest import Contender, compete, document
from benchmarks.peers.table import console, logs, parser, show, write

COMPRESSED = {"sharing": "ab", "factor": 4, "boundaries": (0.06, 0.2, 0.7, 0.72)}  # as shares of the catalog
STORED = {"item_precision": "int8", "network_precision": "int8"}
SIDES: dict[str, dict[str, Any] | None] = {
    "compressed": COMPRESSED,
    "int8": {**COMPRESSED, **STORED},
    "narrow": {**COMPRESSED, "boundaries": (0.008, 0.04, 0.2)},
    "full": {"input": "full", "output": "full", "sharing": "ab"},
    "tied": None,
}


def contenders(options: Any, task: str) -> list[Contender]:
    """The sides of one task; training in int8 does not exist."""
    sides = []
    for name in options.sides:
        if name == "int8" and task == "train":
            continue
        compression = SIDES[name]
        if compression and "boundaries" in compression:
            ends = [round(share * options.items) for share in compression["boundaries"]]
            compression = {**compression, "boundaries": ends}
        arguments = {
            "dim": options.dim,
            "max_length": options.length,
            "dilations": [1, 4],
            "num_repeats": options.repeats,
        }
        settings = {
            "task": task,
            "student": "nextitnet",
            "arguments": {**arguments, "compression": compression},
            "items": options.items,
            "users": options.users,
            "length": options.length,
            "batch": options.batch,
            "seed": options.seed,
            "core": options.core,
            "k": options.k,
        }
        steps = options.steps if task == "train" else options.requests
        sides.append(Contender(name, "large_catalog", OURS, settings, steps, sides[0].name if sides else None))
    return sides


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=3)
    made.add_argument("--task", choices=("train", "answer"), nargs="*", default=["train", "answer"])
    made.add_argument(
        "--sides", choices=SIDES, nargs="*", default=list(SIDES), help="the first is what others stand beside"
    )
    made.add_argument("--items", type=int, default=500_000)
    made.add_argument("--dim", type=int, default=512)
    made.add_argument("--length", type=int, default=50)
    made.add_argument("--repeats", type=int, default=4, help="of the network's two blocks; 4 are the paper's TikTok")
    made.add_argument("--users", type=int, default=2000)
    made.add_argument("--batch", type=int, default=32, help="users per step; the paper's TikTok has 32")
    made.add_argument("--steps", type=int, default=2, help="training steps per round")
    made.add_argument("--requests", type=int, default=50, help="requests per round")
    made.add_argument("-k", type=int, default=20, help="items per answer")
    options = made.parse_args(arguments)
    measured = {}
    failed = False
    for task in options.task:
        results = compete(contenders(options, task), options.rounds, logs(f"large_catalog_{task}"), console().print)
        measured[task] = document(f"large_catalog_{task}", vars(options) | {"data": None, "json": None}, results)
        show(measured[task], f"{task}: {options.items:,} items, width {options.dim}")
        failed |= any(result.failure for result in results)
        for result in results:
            told = {key: result.facts[key] for key in ("parameters", "bytes", "identical") if key in result.facts}
            console().print(f"{result.contender.name}: {told}", markup=False)
    write(measured, options.json)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
