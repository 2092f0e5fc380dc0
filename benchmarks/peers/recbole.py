"""RecBole's SASRec with its own trainer; cross-entropy at one target per augmented row.

Its layer norm stands after the sub-layers (GELU); the feed-forward width is set to the embedding width, as for all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.dataset import NeutralSet, read_neutral
from benchmarks.peers.session import Session

NAME = "neutral"


def write_atomic(neutral: NeutralSet, folder: Path) -> None:
    """The .inter file that RecBole reads, with the position as the time."""
    path = folder / NAME / f"{NAME}.inter"
    path.parent.mkdir(parents=True, exist_ok=True)
    users, items, positions = neutral.columns()
    with path.open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{u}\t{i}\t{p}\n" for u, i, p in zip(users, items, positions, strict=True))


def settings(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "recbole-saved"),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": options["length"],
        "hidden_size": options["dim"],
        "inner_size": options["inner"],
        "n_layers": options["layers"],
        "n_heads": options["heads"],
        "hidden_dropout_prob": options["dropout"],
        "attn_dropout_prob": options["dropout"],
        "hidden_act": "gelu",
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "train_batch_size": options["batch"],
        # RecBole divides this by the number of items to get the users of a batch.
        "eval_batch_size": options["evaluation_batch"] * 4096,
        "metrics": ["Recall", "NDCG", "MRR"],
        "topk": [5, 10, 20],
        "valid_metric": "NDCG@10",
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "reproducibility": False,
        "seed": options["seed"],
    }


class CountingLoss:
    """The model's loss, with a tick of the session for the step before: RecBole's own epoch loop calls nothing else."""

    def __init__(self, session: Session, model: Any) -> None:
        self.session, self.model = session, model
        self.pending: tuple[int, Any] | None = None

    def __call__(self, interaction: Any) -> Any:
        if self.pending is not None:
            self.session.tick(self.pending[0], float(self.pending[1]))
        loss = self.model.calculate_loss(interaction)
        self.pending = (len(interaction), loss.detach())
        return loss


def train(session: Session, model: Any, trainer: Any, data: tuple[Any, ...], facts: dict[str, Any]) -> None:
    loss = CountingLoss(session, model)
    session.begin(**facts)
    for epoch in range(10**6):
        trainer._train_epoch(data[0], epoch, loss_func=loss)


def evaluate(session: Session, model: Any, trainer: Any, data: tuple[Any, ...], facts: dict[str, Any]) -> None:
    """`Trainer.evaluate` in full-sort mode: all users of the test part, all items."""
    trainer.eval_collector.data_collect(data[0])
    users = len(data[2]._dataset)
    session.begin(**facts)
    while True:
        result = trainer.evaluate(data[2], load_best_model=False, show_progress=False)
        session.tick(users, result["ndcg@10"])


def main() -> None:
    session, options = Session.start()
    torch.set_num_threads(1)
    arguments, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line itself
    import recbole
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    folder = Path(options["data"]).parent
    write_atomic(read_neutral(options["data"]), folder)
    config = Config(model="SASRec", dataset=NAME, config_dict=settings(options, folder))
    init_seed(config["seed"], False)
    data = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, data[0].dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
        "version": f"RecBole {recbole.__version__}",
    }
    sys.argv = arguments
    {"train": train, "evaluate": evaluate}[options["task"]](session, model, trainer, data, facts)


if __name__ == "__main__":
    main()
