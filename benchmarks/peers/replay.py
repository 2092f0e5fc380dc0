"""RePlay's transformers: SasRec with its Parquet data module and Lightning module, or its Bert4Rec.

`SasRec.from_params` with ReLU, a feed-forward width equal to the embedding width and dropout on attention weights; full
cross-entropy where ``options["theirs"]`` names no other loss. With ``bucketed`` the encoder is wrapped in its
`LengthBucketedQueryEncoder`, which skips part of the padding. `Bert4Rec` reads a dataset in memory, its own way.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.nn import loss as losses
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import ComputeMetricsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.sequential import LengthBucketedQueryEncoder, SasRec
from replay.nn.transform import UniformNegativeSamplingTransform
from replay.nn.transform.template import make_default_sasrec_transforms

from benchmarks.peers.dataset import HELD_OUT, NeutralSet, read_neutral
from benchmarks.peers.lightning_rounds import MANY_EPOCHS, QUIET, training_rounds
from benchmarks.peers.session import Session

ITEM = "item_id"
BUCKET_ROWS = 32
QUERY = "query_id"
CUTOFFS = [5, 10, 20]


def schema_of(neutral: NeutralSet, dim: int, padding: int | None = None) -> TensorSchema:
    """Items from 0; padding is N unless it is given."""
    return TensorSchema(
        [
            TensorFeatureInfo(
                ITEM,
                is_seq=True,
                feature_type=FeatureType.CATEGORICAL,
                embedding_dim=dim,
                padding_value=neutral.num_items if padding is None else padding,
                cardinality=neutral.num_items,
                feature_hint=FeatureHint.ITEM_ID,
                feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, ITEM)],
            )
        ]
    )


def write_sequences(neutral: NeutralSet, data: Path, held_out: int) -> Path:
    """One row per user; items from 0, the padding value is N. The evaluation file carries the target too."""
    path = data.with_name(f"{data.stem}-replay-{held_out}.parquet")
    lists = [(neutral.sequence(user, held_out) - 1).astype(np.int64) for user in range(neutral.num_users)]
    table = {ITEM: pa.array(lists, pa.list_(pa.int64()))}
    if held_out == 1:
        targets = [[int(item) - 1] for item in neutral.targets()]
        table["ground_truth"] = pa.array(targets, pa.list_(pa.int64()))
    pq.write_table(pa.table(table), path)
    return path


def module_of(options: dict[str, Any], schema: TensorSchema) -> LightningModule:
    model = SasRec.from_params(
        schema,
        embedding_dim=options["dim"],
        num_heads=options["heads"],
        num_blocks=options["layers"],
        max_sequence_length=options["length"],
        dropout=options["dropout"],
        hidden_dim=options["inner"],
    )
    theirs = options.get("theirs", {})
    model.loss = getattr(losses, theirs.get("loss", "CE"))(**ignored(theirs, schema))
    model.loss.logits_callback = model.get_logits
    if options.get("bucketed"):
        model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, BUCKET_ROWS)
    return LightningModule(model, optimizer_factory=OptimizerFactory(learning_rate=1e-3))


def ignored(theirs: dict[str, Any], schema: TensorSchema) -> dict[str, Any]:
    """The full softmax is told which label is padding; the others never see it."""
    return {} if "negatives" in theirs else {"ignore_index": schema.item_id_features.item().padding_value}


def train(session: Session, neutral: NeutralSet, options: dict[str, Any], facts: dict[str, Any]) -> None:
    if options.get("theirs", {}).get("model") == "Bert4Rec":
        return train_bert(session, neutral, options, facts)
    schema = schema_of(neutral, options["dim"])
    transforms = make_default_sasrec_transforms(schema)
    if "negatives" in options.get("theirs", {}):
        negatives = options["theirs"]["negatives"]
        transforms["train"].append(UniformNegativeSamplingTransform(neutral.num_items, negatives))
    data = ParquetModule(
        batch_size=options["batch"],
        metadata={"train": {ITEM: {"shape": options["length"] + 1, "padding": neutral.num_items}}},
        transforms=transforms,
        train_path=str(write_sequences(neutral, Path(options["data"]), HELD_OUT)),
    )
    rounds = training_rounds(lightning.Callback, session, lambda batch: int(batch["target_padding_mask"].sum()), facts)
    trainer = lightning.Trainer(max_epochs=MANY_EPOCHS, callbacks=[rounds], limit_val_batches=0, **QUIET)
    trainer.fit(module_of(options, schema), datamodule=data)


def hidden(batch: dict[str, Any]) -> int:
    """Items of a batch that its cloze hides."""
    return int((batch["pad_mask"] & ~batch["token_mask"]).sum())


def train_bert(session: Session, neutral: NeutralSet, options: dict[str, Any], facts: dict[str, Any]) -> None:
    """Its Bert4Rec, an older module with a data set of its own; output tied to the item embedding, as ours."""
    import pandas as pd
    from replay.data.nn import PandasSequentialDataset
    from replay.models.nn.sequential.bert4rec import Bert4Rec, Bert4RecTrainingDataset

    schema = schema_of(neutral, options["dim"], padding=0)  # its table has no row for N; attention leaves padding out
    lists = [neutral.sequence(user, HELD_OUT) - 1 for user in range(neutral.num_users)]
    frame = pd.DataFrame({QUERY: np.arange(neutral.num_users), ITEM: lists})
    data = Bert4RecTrainingDataset(
        PandasSequentialDataset(schema, QUERY, ITEM, frame), options["length"], mask_prob=options["theirs"]["mask_prob"]
    )
    model = Bert4Rec(
        schema,
        block_count=options["layers"],
        head_count=options["heads"],
        hidden_size=options["dim"],
        max_seq_len=options["length"],
        dropout_rate=options["dropout"],
        enable_embedding_tying=True,
    )
    rounds = training_rounds(lightning.Callback, session, hidden, facts)
    loader = torch.utils.data.DataLoader(data, batch_size=options["batch"], shuffle=True)
    lightning.Trainer(max_epochs=MANY_EPOCHS, callbacks=[rounds], **QUIET).fit(model, loader)


def evaluate(session: Session, neutral: NeutralSet, options: dict[str, Any], facts: dict[str, Any]) -> None:
    """`Trainer.validate` with the library's metrics callback."""
    schema = schema_of(neutral, options["dim"])
    shapes = {
        ITEM: {"shape": options["length"], "padding": neutral.num_items},
        "ground_truth": {"shape": 1, "padding": -1},
    }
    data = ParquetModule(
        batch_size=options["evaluation_batch"],
        metadata={"validate": shapes},
        transforms=make_default_sasrec_transforms(schema),
        validate_path=str(write_sequences(neutral, Path(options["data"]), 1)),
    )
    metrics = ComputeMetricsCallback(metrics=["recall", "ndcg", "mrr"], ks=CUTOFFS, verbose=False)
    trainer = lightning.Trainer(callbacks=[metrics], **QUIET)
    module = module_of(options, schema)
    session.begin(parameters=sum(parameter.numel() for parameter in module.parameters()), **facts)
    while True:
        values = trainer.validate(module, datamodule=data, verbose=False)[0]
        session.tick(neutral.num_users, values["ndcg@10"])


def main() -> None:
    session, options = Session.start()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(options["seed"])
    facts = {"torch": torch.__version__, "version": f"RePlay {version('replay-rec')}"}
    work = {"train": train, "evaluate": evaluate}[options["task"]]
    work(session, read_neutral(options["data"]), options, facts)


if __name__ == "__main__":
    main()
