"""WarpRec's SASRec in a Lightning trainer; cross-entropy over the catalogue (no negatives) at one target per row.

Its layer norm stands after the sub-layers (GELU); the feed-forward width is set to the embedding width, as for all.
Only training is compared: its evaluation is bound to its run configuration.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import lightning
import narwhals as nw
import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix
from warprec.data.entities import Sessions
from warprec.recommenders.sequential_recommender.sasrec import SASRec

from benchmarks.peers.dataset import HELD_OUT, NeutralSet, read_neutral
from benchmarks.peers.lightning_rounds import MANY_EPOCHS, QUIET, training_rounds
from benchmarks.peers.session import Session


def sessions_of(neutral: NeutralSet) -> Sessions:
    """The training part as WarpRec's sessions."""
    users, items, positions = neutral.columns(HELD_OUT)
    frame = nw.from_native(pl.DataFrame({"user_id": users, "item_id": items, "timestamp": positions}), eager_only=True)
    matrix = csr_matrix((np.ones(len(users), np.float32), (users - 1, items - 1)))
    return Sessions(
        frame,
        {int(user): index for index, user in enumerate(range(1, neutral.num_users + 1))},
        {int(item): index for index, item in enumerate(range(1, neutral.num_items + 1))},
        matrix,
    )


def parameters_of(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "embedding_size": options["dim"],
        "n_layers": options["layers"],
        "n_heads": options["heads"],
        "inner_size": options["inner"],
        "dropout_prob": options["dropout"],
        "attn_dropout_prob": options["dropout"],
        "reg_weight": 0.0,
        "weight_decay": 0.0,
        "batch_size": options["batch"],
        "epochs": 1,
        "learning_rate": 1e-3,
        "neg_samples": 0,
        "max_seq_len": options["length"],
    }


def main() -> None:
    session, options = Session.start()
    torch.set_num_threads(1)
    neutral = read_neutral(options["data"])
    model = SASRec(
        parameters_of(options), {"n_users": neutral.num_users, "n_items": neutral.num_items}, seed=options["seed"]
    )
    loader = model.get_dataloader(None, sessions_of(neutral))
    facts = {"torch": torch.__version__, "version": f"WarpRec {version('warprec')}"}
    rounds = training_rounds(lightning.Callback, session, lambda batch: len(batch[2]), facts)
    lightning.Trainer(max_epochs=MANY_EPOCHS, callbacks=[rounds], **QUIET).fit(model, loader)


if __name__ == "__main__":
    main()
