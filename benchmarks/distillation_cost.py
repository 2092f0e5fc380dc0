"""What an epoch with distillation costs beside the plain epoch, on Amazon Scientific, teachers already annotated.

    python -m benchmarks.distillation_cost --json FILE
    python -m benchmarks.distillation_cost --set candidates=all --set max_instances=256

The same SASRec (d 64), the same batches; the distilled epoch reads two teachers' states (fp16, width 300) by training
instance and adds the distillation loss. Whole epochs, interleaved, one pinned thread each, CPU time.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.environments import OURS
from benchmarks.peers.contest import CACHE, Contender, compete, document
from benchmarks.peers.dataset import HELD_OUT, read_neutral, write_neutral
from benchmarks.peers.table import console, logs, number, parser, show, write

PLAIN, DISTILLED = "plain epoch", "distilled epoch"
SIZES: dict[str, Any] = {
    "dim": 64,
    "layers": 2,
    "heads": 2,
    "inner": 256,
    "dropout": 0.2,
    "norm": "post",
    "activation": "gelu",
}


def setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the value as JSON where it is JSON, else as text.

    >>> setting("weight=0.5"), setting("candidates=all")
    (('weight', 0.5), ('candidates', 'all'))
    """
    key, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def main(arguments: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--dataset", default="amazon-scientific", help="folder below --data")
    made.add_argument("--length", type=int, default=50)
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--teachers", type=int, default=2)
    made.add_argument("--width", type=int, default=300, help="width of the teachers' states")
    made.add_argument("--steps", type=int, default=None, help="steps per round; default: one epoch")
    made.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=VALUE", help="distillation key")
    options = made.parse_args(arguments)
    data = write_neutral(options.data / options.dataset, CACHE / f"{options.dataset}.npz")
    settings = {
        **SIZES,
        "task": "train",
        "data": str(data),
        "length": options.length,
        "batch": options.batch,
        "seed": options.seed,
        "core": options.core,
        "width": options.width,
        "distillation": dict(options.set),
    }
    users = int((read_neutral(data).lengths - HELD_OUT >= 2).sum())
    steps = options.steps or -(-users // options.batch)
    distilled = {**settings, "teachers": options.teachers}
    sides = [
        Contender(PLAIN, "distillation", OURS, {**settings, "teachers": 0}, steps),
        Contender(DISTILLED, "distillation", OURS, distilled, steps, against=PLAIN),
    ]
    results = compete(sides, options.rounds, logs("distillation"), console().print)
    measured = document("distillation_cost", distilled, results)
    show(measured, f"An epoch of SASRec on {options.dataset}, {options.teachers} teachers")
    cost = measured["ours_over_theirs"].get(DISTILLED)
    if cost:
        spread = cost["rate"]  # targets per second, plain over distilled: how many times the plain epoch
        console().print(
            f"one distilled epoch costs {number(spread['median'])} plain epochs "
            f"({number(spread['min'])} to {number(spread['max'])})"
        )
    write(measured, options.json)
    return 0 if cost else 1


if __name__ == "__main__":
    sys.exit(main())
