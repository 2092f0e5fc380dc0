"""RecBole's models with its own trainer; its sequence models have one target per augmented row.

``options["theirs"]`` is its configuration, with the name of the model; SASRec where the contest says nothing: layer
norm after the sub-layers (GELU), the feed-forward width set to the embedding width, as for all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.dataset import NeutralSet, best_items, read_neutral, write_lists
from benchmarks.peers.session import Session

PARTS = {"valid": 1, "test": 2}  # places in what RecBole's `data_preparation` returns


def write_atomic(neutral: NeutralSet, folder: Path, name: str) -> None:
    """The .inter file that RecBole reads, with the position as the time."""
    path = folder / name / f"{name}.inter"
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
        **{key: value for key, value in options.get("theirs", {}).items() if key != "model"},
    }


class CountingLoss:
    """The model's loss, with a tick of the session for the step before: RecBole's own epoch loop calls nothing else."""

    def __init__(self, session: Session, model: Any, label: str) -> None:
        self.session, self.model, self.label = session, model, label
        self.pending: tuple[int, Any] | None = None

    def __call__(self, interaction: Any) -> Any:
        if self.pending is not None:
            self.session.tick(self.pending[0], float(self.pending[1]))
        loss = self.model.calculate_loss(interaction)
        self.pending = (self.targets(interaction), loss.detach())
        return loss

    def targets(self, interaction: Any) -> int:
        """Hidden items of a cloze (place 0 is padding to RecBole), rows with a positive label, or all rows."""
        if "MASK_INDEX" in interaction.columns:
            return int((interaction["MASK_INDEX"] > 0).sum())
        if self.label in interaction.columns:
            return int(interaction[self.label].sum())
        return len(interaction)


class Lists:
    """Ranks for the users of a part, in RecBole's numbers, and writes lists in ours."""

    def __init__(self, model: Any, data: tuple[Any, ...], neutral: NeutralSet, k: int) -> None:
        self.model, self.data, self.neutral, self.k = model, data, neutral, k
        dataset = data[0].dataset
        self.users, self.items = (
            np.array([0, *map(int, dataset.field2id_token[field][1:])])
            for field in (dataset.uid_field, dataset.iid_field)
        )  # by RecBole's number, 0 is its padding

    @torch.no_grad()
    def __call__(self, part: str, file: str) -> None:
        self.model.eval()
        lists = np.zeros((self.neutral.num_users, self.k), dtype=np.int32)
        for interaction, *_ in self.data[PARTS[part]]:
            theirs = self.model.full_sort_predict(interaction).view(len(interaction), -1).numpy()
            scores = np.full((len(interaction), self.neutral.num_items + 1), -np.inf, dtype=np.float32)
            scores[:, self.items] = theirs[:, : len(self.items)]
            users = self.users[interaction[self.data[0].dataset.uid_field].numpy()] - 1
            lists[users] = best_items(scores, [self.neutral.history(user, part) for user in users], self.k)
        self.model.train()
        write_lists(file, lists)


def train(session: Session, model: Any, trainer: Any, data: tuple[Any, ...], options: dict[str, Any]) -> None:
    loss = CountingLoss(session, model, trainer.config["LABEL_FIELD"])
    rank = Lists(model, data, read_neutral(options["data"]), options["list"]) if "list" in options else None
    session.begin(rank, **facts_of(model))
    for epoch in range(10**6):
        trainer._train_epoch(data[0], epoch, loss_func=loss)


def fit(session: Session, model: Any, trainer: Any, data: tuple[Any, ...], options: dict[str, Any]) -> None:
    """A model that only counts, from nothing, and an epoch, in which such a model may count; a step is one fit."""
    session.begin(**facts_of(model))
    while True:
        trainer.model = type(model)(trainer.config, data[0].dataset)
        trainer._train_epoch(data[0], 0)
        session.tick(len(data[0].dataset))


def evaluate(session: Session, model: Any, trainer: Any, data: tuple[Any, ...], options: dict[str, Any]) -> None:
    """`Trainer.evaluate` in full-sort mode: all users of the test part, all items."""
    trainer.eval_collector.data_collect(data[0])
    users = len(data[2]._dataset)
    session.begin(**facts_of(model))
    while True:
        result = trainer.evaluate(data[2], load_best_model=False, show_progress=False)
        session.tick(users, result["ndcg@10"])


def recommend(session: Session, model: Any, trainer: Any, data: tuple[Any, ...], options: dict[str, Any]) -> None:
    """`full_sort_topk` for all users of the test part, `evaluation_batch` at a time; it ranks seen items, too.

    Its numbers are turned into item ids, as its documentation does.
    """
    from recbole.utils.case_study import full_sort_topk

    dataset, size = data[2].dataset, options["evaluation_batch"]
    users = dataset.inter_feat[dataset.uid_field].numpy()
    session.begin(**facts_of(model))
    while True:
        value = 0.0
        for begin in range(0, len(users), size):
            found = full_sort_topk(users[begin : begin + size], model, data[2], options["list"], "cpu")
            dataset.id2token(dataset.iid_field, found.indices)
            value = float(found.values[0, 0])
        session.tick(len(users), value)


def facts_of(model: Any) -> dict[str, Any]:
    import recbole

    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
        "version": f"RecBole {recbole.__version__}",
    }


def main() -> None:
    session, options = Session.start()
    torch.set_num_threads(1)
    arguments, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line itself
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    path = Path(options["data"])
    write_atomic(read_neutral(path), path.parent, path.stem)
    name = options.get("theirs", {}).get("model", "SASRec")
    config = Config(model=name, dataset=path.stem, config_dict=settings(options, path.parent))
    init_seed(config["seed"], False)
    data = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, data[0].dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    sys.argv = arguments
    tasks = {"train": train, "fit": fit, "evaluate": evaluate, "recommend": recommend}
    tasks[options["task"]](session, model, trainer, data, options)


if __name__ == "__main__":
    main()
