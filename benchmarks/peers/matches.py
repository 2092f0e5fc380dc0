"""Which model of which peer meets which student, and in which settings: the one table of both comparisons.

``theirs`` goes to the peer's worker as it stands: RecBole's is its configuration, RecTools' the arguments of its model
class, RePlay's what its worker builds from. A model that a peer lacks stands in `ABSENT` with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DIM, LENGTH, SEQUENCES = 64, 50, 128
NEGATIVES = 256
PRE = {"norm": "pre", "activation": "relu", "inner_dim": DIM}
POST = {"norm": "post", "activation": "gelu", "inner_dim": DIM}
NAMES = {"rectools": "RecTools", "replay": "RePlay", "recbole": "RecBole", "warprec": "WarpRec"}


@dataclass(frozen=True)
class Match:
    """One peer's model beside one of our students.

    Attributes:
        title: the table in which both stand.
        student: name in `components.students.STUDENTS`.
        peer: name in `environments.PEERS`.
        ours: arguments of the student.
        theirs: what the peer's worker is told.
        batch: what a batch of the peer holds: "sequences" (as many as ours); "targets" (as many as ours on average,
            where the peer makes a row of every target); or a number of its rows.
        task: "train", or "fit" for models that only count.
    """

    title: str
    student: str
    peer: str
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    batch: str | int = "sequences"
    task: str = "train"


def sampled(loss: str, negatives: int, shared: bool) -> dict[str, Any]:
    """Arguments of a loss of ours that draws negatives."""
    return {"loss": loss, "num_negatives": negatives, "shared_negatives": shared}


RECBOLE_TRANSFORMER = {
    "hidden_size": DIM,
    "inner_size": DIM,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dropout_prob": 0.2,
    "attn_dropout_prob": 0.2,
    "hidden_act": "gelu",
    "loss_type": "CE",
}
RECTOOLS_TRANSFORMER = {"n_blocks": 2, "n_heads": 2, "n_factors": DIM, "dropout_rate": 0.2, "session_max_len": LENGTH}
RECTOOLS_SASREC = {"model": "SASRecModel", **RECTOOLS_TRANSFORMER}
RECTOOLS_BERT = {"model": "BERT4RecModel", **RECTOOLS_TRANSFORMER, "mask_prob": 0.2}
ONE_NEGATIVE = {"distribution": "uniform", "sample_num": 1}
# Factorization machines of RecBole take every loaded column as a field, times too; without times there is no order.
IDS_ALONE = {
    "embedding_size": DIM,
    "load_col": {"inter": ["user_id", "item_id"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "RO", "mode": "full", "group_by": "user"},
    "train_neg_sample_args": ONE_NEGATIVE,
}
GRU = {"dropout": 0.3, "hidden_dim": 128}
RECBOLE_GRU = {"model": "GRU4Rec", "embedding_size": DIM, "hidden_size": 128, "num_layers": 1, "dropout_prob": 0.3}
CLOZE = {"mask_probability": 0.2, "mask_last": False}
BERT_INNER = 4 * DIM  # what RecTools and RePlay fix

SOFTMAX, BPR = "SASRec, softmax", "SASRec, BPR, 1 negative each"
BCE, GBCE = "SASRec, BCE, 1 negative each", f"SASRec, gBCE, {NEGATIVES} negatives each"
OWN_SOFTMAX = f"SASRec, sampled softmax, {NEGATIVES} negatives each"
SHARED_SOFTMAX = f"SASRec, sampled softmax, {NEGATIVES} negatives per batch"
SHARED_BCE = f"SASRec, BCE, {NEGATIVES} negatives per batch"
BERT = "BERT4Rec, softmax, 20 % hidden"

SPEED: tuple[Match, ...] = (
    Match(SOFTMAX, "sasrec", "rectools", PRE, {**RECTOOLS_SASREC, "loss": "softmax"}),
    Match(SOFTMAX, "sasrec", "replay", PRE, {"model": "SasRec", "loss": "CE"}),
    Match(SOFTMAX, "sasrec", "recbole", POST, {"model": "SASRec", **RECBOLE_TRANSFORMER}, "targets"),
    Match(SOFTMAX, "sasrec", "warprec", POST, {"model": "SASRec"}, "targets"),
    Match(BCE, "sasrec", "rectools", PRE | sampled("bce", 1, False), {**RECTOOLS_SASREC, "loss": "BCE"}),
    Match(
        BPR,
        "sasrec",
        "recbole",
        POST | sampled("bpr", 1, False),
        {"model": "SASRec", **RECBOLE_TRANSFORMER, "loss_type": "BPR", "train_neg_sample_args": ONE_NEGATIVE},
        "targets",
    ),
    Match(
        GBCE,
        "sasrec",
        "rectools",
        PRE | sampled("gbce", NEGATIVES, False) | {"gbce_calibration": 0.75},
        {**RECTOOLS_SASREC, "loss": "gBCE", "n_negatives": NEGATIVES, "gbce_t": 0.75},
    ),
    Match(
        OWN_SOFTMAX,
        "sasrec",
        "rectools",
        PRE | sampled("sampled-softmax", NEGATIVES, False),
        {**RECTOOLS_SASREC, "loss": "sampled_softmax", "n_negatives": NEGATIVES},
    ),
    Match(
        SHARED_SOFTMAX,
        "sasrec",
        "replay",
        PRE | sampled("sampled-softmax", NEGATIVES, True),
        {"model": "SasRec", "loss": "CESampled", "negatives": NEGATIVES},
    ),
    Match(
        SHARED_BCE,
        "sasrec",
        "replay",
        PRE | sampled("bce", NEGATIVES, True),
        {"model": "SasRec", "loss": "BCESampled", "negatives": NEGATIVES},
    ),
    Match(
        BERT,
        "bert4rec",
        "rectools",
        CLOZE | {"norm": "pre", "inner_dim": BERT_INNER},
        {**RECTOOLS_BERT, "loss": "softmax"},
    ),
    Match(
        BERT,
        "bert4rec",
        "replay",
        CLOZE | {"norm": "pre", "inner_dim": BERT_INNER},
        {"model": "Bert4Rec", "mask_prob": 0.2},
    ),
    Match(
        BERT,
        "bert4rec",
        "recbole",
        CLOZE | {"norm": "post", "inner_dim": BERT_INNER},
        {"model": "BERT4Rec", **RECBOLE_TRANSFORMER, "inner_size": BERT_INNER, "mask_ratio": 0.2, "ft_ratio": 0.0},
    ),
    Match("GRU4Rec, softmax", "gru4rec", "recbole", GRU, {**RECBOLE_GRU, "loss_type": "CE"}, "targets"),
    Match(
        "NextItNet, softmax",
        "nextitnet",
        "recbole",
        {"dilations": [1, 4], "num_repeats": 5, "dropout": 0.0},
        {"model": "NextItNet", "embedding_size": DIM, "dilations": [1, 4], "block_num": 5, "loss_type": "CE"},
        "targets",
    ),
    Match(
        "Caser, softmax, windows of 5",
        "caser",
        "recbole",
        {"window": 5, "num_horizontal": 8, "num_vertical": 4, "dropout": 0.4},
        {"model": "Caser", "embedding_size": DIM, "nh": 8, "nv": 4, "dropout_prob": 0.4, "MAX_ITEM_LIST_LENGTH": 5},
        "targets",
    ),
    Match(
        "FM, BCE, 1 negative each",
        "fm",
        "recbole",
        {"use_history": False, **sampled("bce", 1, False)},
        {"model": "FM", **IDS_ALONE},
        "targets",
    ),
    Match(
        "DeepFM, BCE, 1 negative each",
        "deepfm",
        "recbole",
        {"use_history": False, "hidden": [128, 128], "dropout": 0.1, **sampled("bce", 1, False)},
        {"model": "DeepFM", **IDS_ALONE, "mlp_hidden_size": [128, 128], "dropout_prob": 0.1},
        "targets",
    ),
    Match(
        "LightGCN, BPR, 1 negative each",
        "lightgcn",
        "recbole",
        {"loss": "bpr", "num_layers": 3, "l2": 1e-4},
        {
            "model": "LightGCN",
            "embedding_size": DIM,
            "n_layers": 3,
            "reg_weight": 1e-4,
            "require_pow": True,
            "train_neg_sample_args": ONE_NEGATIVE,
        },
        "targets",
    ),
    Match(
        "item-KNN, 100 neighbors", "itemknn", "recbole", {"neighbors": 100}, {"model": "ItemKNN", "k": 100}, task="fit"
    ),
    Match("popularity", "mostpop", "recbole", {}, {"model": "Pop"}, task="fit"),
)

RECBOLE_ROWS = 2048  # its default batch
QUALITY: tuple[Match, ...] = (
    Match("SASRec", "sasrec", "rectools", {}, {**RECTOOLS_SASREC, "loss": "softmax"}),
    Match(
        "SASRec", "sasrec", "recbole", {}, {"model": "SASRec", **RECBOLE_TRANSFORMER, "inner_size": 256}, RECBOLE_ROWS
    ),
    Match("GRU4Rec", "gru4rec", "recbole", GRU, {**RECBOLE_GRU, "loss_type": "CE"}, RECBOLE_ROWS),
    Match("BERT4Rec", "bert4rec", "rectools", {}, {**RECTOOLS_BERT, "loss": "softmax"}),
    Match(
        "BERT4Rec",
        "bert4rec",
        "recbole",
        {},
        {"model": "BERT4Rec", **RECBOLE_TRANSFORMER, "inner_size": 256, "mask_ratio": 0.2, "ft_ratio": 0.5},
        RECBOLE_ROWS,
    ),
)

ABSENT: dict[str, str] = {  # what nobody of them has, or has in another form
    "RecTools": "no GRU4Rec, NextItNet, Caser or factorization machine; its BPR is no loss of its transformers; "
    "its LightFM wrapper is another model",
    "RePlay": "no GRU4Rec, NextItNet, Caser, DeepFM or LightGCN; no gBCE; negatives are drawn per batch, so it is not "
    "beside losses with negatives of each target's own",
    "RecBole": "its sequence models have softmax and BPR alone",
    "all": "RecGURU: none has it; distillation: none has it",
}


def fits(match: Match, titles: Sequence[str]) -> bool:
    """Whether a title has one of `titles` in it, case aside; any does where none is given."""
    return not titles or any(title.lower() in match.title.lower() for title in titles)


def tables(matches: Sequence[Match], titles: Sequence[str], peers: Sequence[str]) -> list[list[Match]]:
    """The matches of some peers that fit `titles`, by title, in order."""
    found: dict[str, list[Match]] = {}
    for match in matches:
        if match.peer in peers and fits(match, titles):
            found.setdefault(match.title, []).append(match)
    return list(found.values())


def check_titles(titles: Sequence[str], matches: Sequence[Match]) -> None:
    """Refuse what fits no table.

    Raises:
        ValueError: names it and the tables that there are.
    """
    for title in titles:
        if not any(fits(match, [title]) for match in matches):
            known = "; ".join(dict.fromkeys(match.title for match in matches))
            raise ValueError(f"no table {title!r}; expected a part of one of: {known}")
