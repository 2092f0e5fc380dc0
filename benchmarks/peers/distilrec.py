"""Our side: plain components, no Ray, as one worker of `pipelines` runs them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.dataset import HELD_OUT, NeutralSet, read_neutral, write_lists
from benchmarks.peers.session import Session
from components.data.batching import Batch, TrainingBatches
from components.data.flat_sequences import Sequences
from components.model import Catalog, OutputHead, Ranker
from components.students import STUDENTS
from components.training.config import TrainingConfig
from components.training.loop import Place, Trainer, World

MANY_EPOCHS = 10**6


def sequences_of(neutral: NeutralSet) -> Sequences:
    """The neutral set as our prepared sequences, leave-one-out."""
    lengths = neutral.lengths.astype(np.int32)
    return Sequences(
        users=np.arange(1, neutral.num_users + 1, dtype=np.int32),
        offsets=neutral.offsets,
        items=neutral.items.astype(np.int32),
        train_end=lengths - HELD_OUT,
        valid_end=lengths - 1,
    )


def build(options: dict[str, Any], neutral: NeutralSet, sequences: Sequences) -> Ranker:
    """The student that the contest names with its arguments, else a SASRec of the contest's sizes."""
    catalog = Catalog(neutral.num_items, neutral.num_users, neutral.training_counts(), sequences)
    if "student" in options:
        return STUDENTS[options["student"]].make(catalog, options["arguments"])
    return STUDENTS["sasrec"].make(catalog, sasrec(options))


def sasrec(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of SASRec."""
    return {
        "dim": options["dim"],
        "num_layers": options["layers"],
        "num_heads": options["heads"],
        "inner_dim": options["inner"],
        "max_length": options["length"],
        "dropout": options["dropout"],
        "attention_dropout": options["dropout"],
        "norm": options.get("norm", "pre"),
        "activation": options.get("activation", "relu"),
    }


class Ticks:
    """Observer of the training loop that hands control to the contest after every step.

    Args:
        session: the conversation with the contest.
        objective: loss of a batch.
        head: counts a step's targets where not every position is one, as in BERT4Rec; None: the loop says how many.
    """

    def __init__(self, session: Session, objective: Callable[[Batch], Tensor], head: OutputHead | None = None) -> None:
        self.session, self._objective = session, objective
        self.loss = torch.zeros(())
        self._seen: list[int] | None = None if head is None else count_targets(head)

    def objective(self, batch: Batch) -> Tensor:
        """The loss, remembered for the answer."""
        loss = self._objective(batch)
        self.loss = loss.detach()
        return loss

    def begin(self, place: Place) -> None:
        """Nothing to prepare."""

    def step(self, epoch: int, targets: int) -> None:
        if self._seen is not None:
            targets = sum(self._seen)
            self._seen.clear()
        self.session.tick(targets, float(self.loss))

    def epoch(self, row: dict[str, float], checkpoint: Path) -> None:
        """Nothing: checkpoints are written as in any run."""


def count_targets(head: OutputHead) -> list[int]:
    """Wrap the loss of `head`; every call adds its number of targets to the list that is returned."""
    loss, seen = head.loss, list[int]()

    def counted(states: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return loss(states, targets)

    head.loss = counted  # type: ignore[method-assign]
    return seen


def run_loop(
    session: Session,
    model: Ranker,
    batches: TrainingBatches,
    objective: Callable[[Batch], Tensor],
    world: World | None = None,
    rank: Callable[[str, str], None] | None = None,
) -> None:
    """The training loop itself, as every student uses it, until the contest is over; rank 0 talks to the contest."""
    config = TrainingConfig(epochs=MANY_EPOCHS, batch_size=batches.batch_size, patience=None, precision="fp32")
    ticks = Ticks(session, objective, None if model.causal else model.head)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            batches,
            config,
            objective=ticks.objective,
            validate=None,
            folder=Path(folder),
            world=world,
            observer=ticks if world is None or world.rank == 0 else None,
        )
        if trainer.observer:
            session.begin(rank, **facts(model))
        trainer.fit()


def train(session: Session, model: Ranker, sequences: Sequences, options: dict[str, Any]) -> None:
    """Plain training; it ranks with the model as it stands when it is asked to."""
    from components.evaluation.ranking import top_lists

    def rank(part: str, file: str) -> None:
        write_lists(file, top_lists(model, sequences.cases(part), options["list"], exclude_seen=True))  # type: ignore[arg-type]

    run_loop(session, model, batches_of(sequences, options), model.loss, rank=rank)


def fit(session: Session, model: Ranker, sequences: Sequences, options: dict[str, Any]) -> None:
    """A model that only counts, from nothing; a step is one fit."""
    neutral = read_neutral(options["data"])
    session.begin(**facts(model))
    while True:
        build(options, neutral, sequences_of(neutral))
        session.tick(int(sequences.train_end.sum()))


def batches_of(sequences: Sequences, options: dict[str, Any]) -> TrainingBatches:
    """Each user's latest window, as most peers have it, unless the contest asks for all windows."""
    windows = options.get("windows", "last")
    return TrainingBatches(sequences, options["length"], options["batch"], windows, options["seed"])


def evaluate(session: Session, model: Ranker, sequences: Sequences, options: dict[str, Any]) -> None:
    """Whole evaluations: every user, every item, all metrics."""
    from components.evaluation.metrics import mean_metrics
    from components.inference import Scorer

    scorer = Scorer(model, batch_size=options["evaluation_batch"])
    session.begin(**facts(model))
    while True:
        cases = sequences.cases("test")
        positions = scorer.positions(cases)
        session.tick(len(positions), mean_metrics(positions)["ndcg@10"])


def recommend(session: Session, model: Ranker, sequences: Sequences, options: dict[str, Any]) -> None:
    """What a worker of `distilrec batch` does: histories in, lists of item ids with scores out, seen items left out."""
    from components.bulk import BulkRecommender, Histories

    cases = sequences.cases("test")
    histories = [cases.history(case) for case in range(len(cases))]
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    asked = Histories(np.concatenate(histories), offsets, np.zeros(len(histories), np.int64))
    with tempfile.TemporaryDirectory() as folder:
        write_artifact(Path(folder), model, options)
        recommender = BulkRecommender(Path(folder), reproducible=options.get("reproducible", False))
    session.begin(**facts(model))
    while True:
        found = recommender.recommend(asked, options["list"])
        session.tick(len(found["items"]), found["scores"][0][0].as_py())


def write_artifact(folder: Path, model: Ranker, options: dict[str, Any]) -> None:
    """What stage `export` writes, with made-up item ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from components.artifacts.format import seal
    from components.artifacts.models import save_model

    count = model.num_items
    catalog = Catalog(count, 0, np.zeros(count + 1, np.int64))
    save_model(model, folder, kind="sasrec", family="student", arguments=sasrec(options), catalog=catalog)
    items = {"item_id": [str(item) for item in range(1, count + 1)], "count": np.ones(count, np.int64)}
    pq.write_table(pa.table(items), folder / "items.parquet")
    seal(folder, {})


def facts(model: Ranker) -> dict[str, Any]:
    """What the contest prints beside the rates."""
    return {"parameters": model.parameter_parts()["total"], "torch": torch.__version__, "version": "this repository"}


def prepare(options: dict[str, Any]) -> tuple[Sequences, Ranker]:
    """Sequences and a fresh model, one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(options["seed"])
    neutral = read_neutral(options["data"])
    sequences = sequences_of(neutral)
    return sequences, build(options, neutral, sequences)


def main() -> None:
    session, options = Session.start()
    sequences, model = prepare(options)
    tasks = {"train": train, "fit": fit, "evaluate": evaluate, "recommend": recommend}
    tasks[options["task"]](session, model, sequences, options)


if __name__ == "__main__":
    main()
