"""RecTools' transformers, driven by its own Lightning trainer.

``options["theirs"]`` names the model class and its arguments; `SASRecModel` with the softmax over the whole catalog
where the contest says nothing: its feed-forward width is the embedding width, ReLU, layer norm before the sub-layers,
dropout on attention weights.
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
from rectools.models import BERT4RecModel, SASRecModel

from benchmarks.peers.dataset import HELD_OUT_OF, NeutralSet, read_neutral, write_lists
from benchmarks.peers.lightning_rounds import MANY_EPOCHS, QUIET, training_rounds
from benchmarks.peers.session import Session

CUTOFFS = (5, 10, 20)
MODELS = {"SASRecModel": SASRecModel, "BERT4RecModel": BERT4RecModel}


def frame(neutral: NeutralSet, held_out: int) -> pd.DataFrame:
    """Interactions as RecTools wants them; the position within the user stands for the time."""
    users, items, positions = neutral.columns(held_out)
    times = pd.to_datetime(positions, unit="s")
    return pd.DataFrame(
        {Columns.User: users, Columns.Item: items, Columns.Weight: np.ones(len(users)), Columns.Datetime: times}
    )


def model_of(options: dict[str, Any], trainer: Any) -> Any:
    theirs = options.get("theirs") or {
        "model": "SASRecModel",
        "n_blocks": options["layers"],
        "n_heads": options["heads"],
        "n_factors": options["dim"],
        "dropout_rate": options["dropout"],
        "session_max_len": options["length"],
        "loss": "softmax",
    }
    return MODELS[theirs["model"]](
        **{key: value for key, value in theirs.items() if key != "model"},
        batch_size=options["batch"],
        recommend_batch_size=options["evaluation_batch"],
        recommend_torch_device="cpu",
        get_trainer_func=trainer,
    )


def train(session: Session, neutral: NeutralSet, options: dict[str, Any], facts: dict[str, Any]) -> None:
    def rank(part: str, file: str) -> None:
        model.is_fitted = True  # it trains still: between two steps, it has all that `recommend` needs
        history = Dataset.construct(frame(neutral, HELD_OUT_OF[part]))
        users = np.arange(1, neutral.num_users + 1)
        ranking = model.recommend(users, history, options["list"], filter_viewed=True, on_unsupported_targets="ignore")
        lists = np.zeros((neutral.num_users, options["list"]), dtype=np.int32)
        lists[ranking[Columns.User] - 1, ranking[Columns.Rank] - 1] = ranking[Columns.Item]
        write_lists(file, lists)
        model.is_fitted = False
        model.torch_model.train()

    rounds = training_rounds(Callback, session, lambda batch: int((batch["y"] != 0).sum()), facts, rank)
    model = model_of(options, lambda: Trainer(max_epochs=MANY_EPOCHS, callbacks=[rounds], **QUIET))
    model.fit(Dataset.construct(frame(neutral, 2)))


def recommend(session: Session, neutral: NeutralSet, options: dict[str, Any], facts: dict[str, Any]) -> None:
    """`recommend` for every user, seen items left out."""
    model = model_of(options, lambda: Trainer(max_epochs=1, limit_train_batches=1, **QUIET))
    model.fit(Dataset.construct(frame(neutral, 2)))
    history = Dataset.construct(frame(neutral, 1))
    users = np.arange(1, neutral.num_users + 1)
    session.begin(parameters=sum(p.numel() for p in model.torch_model.parameters()), **facts)
    while True:
        ranking = model.recommend(users, history, k=options["list"], filter_viewed=True)
        session.tick(ranking[Columns.User].nunique(), float(ranking[Columns.Score].iloc[0]))


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
    work = {"train": train, "evaluate": evaluate, "recommend": recommend}[options["task"]]
    work(session, read_neutral(options["data"]), options, facts)


if __name__ == "__main__":
    main()
