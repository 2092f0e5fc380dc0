"""One student of a large synthetic catalog: training steps, or requests of batch 1; see `benchmarks.large_catalog`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.peers.distilrec import batches_of, facts, run_loop
from benchmarks.peers.session import Session
from components.artifacts.models import stored_bytes_by_part
from components.compression.heads import TreeHead
from components.data.batching import history_batch
from components.data.flat_sequences import Sequences
from components.inference import Scorer
from components.model import Catalog, Ranker
from components.students import STUDENTS

CHECKED = 20  # histories whose answers are compared with those of brute force


def zipf_sequences(users: int, num_items: int, length: int, seed: int) -> Sequences:
    """Users whose items are drawn with probability 1 / rank."""
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(1, num_items + 1)
    cumulated = np.cumsum(shares) / shares.sum()
    items = np.searchsorted(cumulated, generator.random(users * length)) + 1
    ends = np.full(users, length, np.int32)
    return Sequences(
        users=np.arange(1, users + 1, dtype=np.int32),
        offsets=np.arange(0, users * length + 1, length),
        items=items.astype(np.int32),
        train_end=ends - 2,
        valid_end=ends - 1,
    )


@torch.no_grad()
def make_popular(model: Ranker, states: torch.Tensor) -> None:
    """Give an untrained tree the shape of a trained one: the scores of an average state fall as those of popularity."""
    head, mean = model.head, states.mean(0)
    assert isinstance(head, TreeHead)
    shares = 1 / torch.arange(1, head.num_items + 1)
    own = head.blocks.sizes[0]
    masses = [part.sum() for part in shares.split(list(head.blocks.sizes))]
    head.root += torch.cat([shares[:own], torch.stack(masses[1:])]).log()[:, None] * mean / mean.square().sum()
    for leaf, start in enumerate(head.blocks.starts[1:]):
        inner = head.projections[leaf] @ mean
        rows = shares[start - 1 : start - 1 + head.blocks.sizes[leaf + 1]].log()
        head.leaves[leaf] += rows[:, None] * inner / inner.square().sum().clamp(min=1e-6)


def answer(session: Session, model: Ranker, sequences: Sequences, options: dict[str, Any]) -> None:
    """Requests, one after another, as the endpoint asks the scorer."""
    scorer, cases = Scorer(model, batch_size=1), sequences.cases("test")
    if isinstance(model.head, TreeHead):
        with torch.inference_mode():
            make_popular(model, torch.cat([model.states(_batch(model, cases, case)) for case in range(CHECKED)]))
    session.begin(
        **facts(model), identical=_identical(model, scorer, cases, options["k"]), bytes=_bytes(model, options)
    )
    case = 0
    while True:
        case = (case + 1) % len(cases)
        items, _ = scorer.top_k([cases.history(case)], options["k"], exclude_seen=False)
        session.tick(1, float(items[0, 0]))


def _batch(model: Ranker, cases: Any, case: int) -> Any:
    return history_batch([cases.history(case).tolist()], model.max_length)


@torch.inference_mode()
def _identical(model: Ranker, scorer: Scorer, cases: Any, k: int) -> bool:
    """Whether the scorer's answers are those of scoring all items."""
    for case in range(CHECKED):
        _, scores = scorer.top_k([cases.history(case)], k, exclude_seen=False)
        best = model.all_scores(_batch(model, cases, case)).topk(k).values
        if not torch.allclose(torch.from_numpy(scores), best, atol=1e-5):
            return False
    return True


def _bytes(model: Ranker, options: dict[str, Any]) -> int:
    return stored_bytes_by_part(model, options["arguments"])["total"]


def main() -> None:
    session, options = Session.start()
    torch.set_num_threads(1)
    torch.manual_seed(options["seed"])
    sequences = zipf_sequences(options["users"], options["items"], options["length"] + 2, options["seed"])
    catalog = Catalog(options["items"], options["users"], np.bincount(sequences.items, minlength=options["items"] + 1))
    model = STUDENTS[options["student"]].make(catalog, options["arguments"])
    if options["task"] == "train":
        run_loop(session, model, batches_of(sequences, options), model.loss)
    else:
        answer(session, model.eval(), sequences, options)


if __name__ == "__main__":
    main()
