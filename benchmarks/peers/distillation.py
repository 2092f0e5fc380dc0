"""Our training loop with or without distillation, for the price of an epoch.

The teachers are arrays of random numbers of the right shape and type: what they say does not change the cost.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers.distilrec import batches_of, prepare, run_loop
from benchmarks.peers.session import Session
from components.data.flat_sequences import Sequences
from components.distillation.config import DistillationConfig
from components.distillation.distiller import Distiller
from components.distillation.teacher_scores import TeacherCache
from components.model import Ranker


def random_teachers(sequences: Sequences, num_items: int, teachers: int, width: int, seed: int) -> TeacherCache:
    """`teachers` teachers with fp16 states for every training instance, as stage annotate stores them."""
    generator = torch.Generator().manual_seed(seed)

    def array(rows: int) -> torch.Tensor:
        return torch.randn(rows, width, generator=generator).mul_(float(width) ** -0.25).half()

    states = [array(sequences.num_instances) for _ in range(teachers)]
    items = [array(num_items + 1) for _ in range(teachers)]
    return TeacherCache(states, items, [DistillationConfig().temperature] * teachers)


def distiller_of(model: Ranker, sequences: Sequences, options: dict[str, Any]) -> Distiller:
    """The objective of a distilled student."""
    count = options["teachers"]
    cache = random_teachers(sequences, model.num_items, count, options["width"], options["seed"])
    config = DistillationConfig(**options["distillation"])
    names = [f"teacher-{k}" for k in range(count)]
    distiller = Distiller(model, cache, names, [0.1 + 0.01 * k for k in range(count)], config)
    batches = batches_of(sequences, options)
    plan = batches.epoch(0)[: config.calibration_batches]
    distiller.calibrate([batches.batch(windows) for windows in plan])
    return distiller


def main() -> None:
    session, options = Session.start()
    sequences, model = prepare(options)
    objective = distiller_of(model, sequences, options) if options["teachers"] else model.loss
    run_loop(session, model, batches_of(sequences, options), objective)


if __name__ == "__main__":
    main()
