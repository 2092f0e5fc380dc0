"""RecTools' SASRecModel, driven by its own Lightning trainer; softmax loss over the whole catalogue.

Same sizes as ours: its feed-forward width is the embedding width, ReLU, layer norm before the sub-layers, dropout on
attention weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools import __version__ as version
from rectools.dataset import Dataset
from rectools.metrics import MRR, NDCG, Recall, calc_metrics
from rectools.models import SASRecModel

from benchmarks.peers.dataset import NeutralSet, read_neutral
from benchmarks.peers.lightning_rounds import MANY_EPOCHS, QUIET, training_rounds
from benchmarks.peers.session import Session

CUTOFFS = (5, 10, 20)


def frame(neutral: NeutralSet, held_out: int) -> pd.DataFrame:
    """Interactions as RecTools wants them; the position within the user stands for the time."""
    users, items, positions = neutral.columns(held_out)
    times = pd.to_datetime(positions, unit="s")
    return pd.DataFrame(
        {Columns.User: users, Columns.Item: items, Columns.Weight: np.ones(len(users)), Columns.Datetime: times}
    )


def model_of(options: dict[str, Any], trainer: Any) -> SASRecModel:
    return SASRecModel(
        n_blocks=options["layers"],
        n_heads=options["heads"],
        n_factors=options["dim"],
        dropout_rate=options["dropout"],
        session_max_len=options["length"],
        batch_size=options["batch"],
        loss="softmax",
        recommend_batch_size=options["evaluation_batch"],
        recommend_torch_device="cpu",
        get_trainer_func=trainer,
    )


def train(session: Session, neutral: NeutralSet, options: dict[str, Any], facts: dict[str, Any]) -> None:
    rounds = training_rounds(Callback, session, lambda batch: int((batch["y"] != 0).sum()), facts)
    model = model_of(options, lambda: Trainer(max_epochs=MANY_EPOCHS, callbacks=[rounds], **QUIET))
    model.fit(Dataset.construct(frame(neutral, 2)))


def evaluate(session: Session, neutral: NeutralSet, options: dict[str, Any], facts: dict[str, Any]) -> None:
    """`recommend` for every user, then `calc_metrics`: the documented way."""
    model = model_of(options, lambda: Trainer(max_epochs=1, limit_train_batches=1, **QUIET))
    model.fit(Dataset.construct(frame(neutral, 2)))
    history = Dataset.construct(frame(neutral, 1))
    users = np.arange(1, neutral.num_users + 1)
    truth = pd.DataFrame({Columns.User: users, Columns.Item: neutral.targets()})
    metrics = {f"{kind.__name__}@{k}": kind(k) for k in CUTOFFS for kind in (Recall, NDCG, MRR)}
    session.begin(parameters=sum(p.numel() for p in model.torch_model.parameters()), **facts)
    while True:
        ranking = model.recommend(users, history, k=max(CUTOFFS), filter_viewed=False)
        values = calc_metrics(metrics, ranking, truth)
        session.tick(ranking[Columns.User].nunique(), values["Recall@10"])


def main() -> None:
    session, options = Session.start()
    torch.set_num_threads(1)
    torch.manual_seed(options["seed"])
    facts = {"torch": torch.__version__, "version": f"RecTools {version}"}
    work = {"train": train, "evaluate": evaluate}[options["task"]]
    work(session, read_neutral(options["data"]), options, facts)


if __name__ == "__main__":
    main()
