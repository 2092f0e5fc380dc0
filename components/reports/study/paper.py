"""The numbers that the paper of PRM-KD prints.

Source: "Distillation is All You Need for Practically Using Different Pre-trained Recommendation Models", Sun et al.,
arXiv 2401.00797, version 1, Tables 2, 3 and 4, as they stand there. Of Figures 3, 4 and 5, which print no
numbers, only what the text says of them is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SOURCE: Final = "arXiv 2401.00797 v1"
DIM: Final = 300  # of every model, section 4.1
BATCH_SIZE: Final = 512  # training instances, section 4.1
PAPER_NAMES: Final = {  # columns of Table 3, by our names of the models
    "unisrec": "UniSRec",
    "recformer": "Recformer",
    "unim2rec": "UniM2Rec",
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "bert4rec": "BERT4Rec",
    "recguru": "RecGURU",
    "prm-kd": "PRM-KD",
}
TABLE_2: Final[Mapping[str, tuple[int, int, int]]] = {  # users, items, interactions
    "instruments": (24_962, 9_749, 207_926),
    "toys": (18_436, 10_986, 163_837),
    "scientific": (11_041, 5_327, 76_896),
    "arts": (45_486, 21_019, 395_150),
    "games": (10_235, 14_798, 98_374),
}
# One number per model, in the order of PAPER_NAMES.
TABLE_3: Final[Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    "instruments": {
        "recall@5": (0.0840, 0.0841, 0.0978, 0.0677, 0.0860, 0.0892, 0.0865, 0.0954),
        "recall@10": (0.1104, 0.1061, 0.1289, 0.0843, 0.0979, 0.1098, 0.1082, 0.1089),
        "recall@20": (0.1473, 0.1395, 0.1697, 0.1093, 0.1483, 0.1572, 0.1374, 0.1593),
        "ndcg@5": (0.0548, 0.0629, 0.0635, 0.0496, 0.0526, 0.0553, 0.0594, 0.0597),
        "ndcg@10": (0.0623, 0.0825, 0.0759, 0.0549, 0.0635, 0.0631, 0.0699, 0.0757),
        "ndcg@20": (0.0717, 0.0917, 0.0842, 0.0612, 0.0703, 0.0719, 0.0811, 0.0814),
    },
    "toys": {
        "recall@5": (0.1007, 0.1123, 0.1053, 0.0757, 0.0795, 0.0694, 0.0742, 0.0884),
        "recall@10": (0.1260, 0.1341, 0.1247, 0.0903, 0.0979, 0.0829, 0.0936, 0.1163),
        "recall@20": (0.1539, 0.1574, 0.1601, 0.1082, 0.1184, 0.0988, 0.1121, 0.1291),
        "ndcg@5": (0.0664, 0.0712, 0.0692, 0.0617, 0.0632, 0.0560, 0.0656, 0.0703),
        "ndcg@10": (0.0745, 0.0943, 0.0901, 0.0664, 0.0693, 0.0604, 0.0679, 0.0784),
        "ndcg@20": (0.0816, 0.0993, 0.0989, 0.0709, 0.0746, 0.0644, 0.0763, 0.0819),
    },
    "scientific": {
        "recall@5": (0.0884, 0.0875, 0.0907, 0.0373, 0.0783, 0.0314, 0.0697, 0.0754),
        "recall@10": (0.1215, 0.1391, 0.1249, 0.0588, 0.1064, 0.0488, 0.0894, 0.1231),
        "recall@20": (0.1674, 0.1695, 0.1723, 0.0843, 0.1408, 0.0721, 0.1157, 0.1534),
        "ndcg@5": (0.0553, 0.0589, 0.0594, 0.0242, 0.0457, 0.0187, 0.0513, 0.0534),
        "ndcg@10": (0.0668, 0.0764, 0.0895, 0.0311, 0.0549, 0.0243, 0.0581, 0.0627),
        "ndcg@20": (0.0781, 0.0979, 0.1012, 0.0376, 0.0635, 0.0302, 0.0642, 0.0715),
    },
    "arts": {
        "recall@5": (0.0905, 0.1053, 0.0917, 0.0565, 0.0804, 0.0782, 0.0797, 0.0879),
        "recall@10": (0.1239, 0.1474, 0.1304, 0.0763, 0.1108, 0.1039, 0.1021, 0.1272),
        "recall@20": (0.1665, 0.1702, 0.1673, 0.1028, 0.1403, 0.1354, 0.1320, 0.1490),
        "ndcg@5": (0.0570, 0.0658, 0.0639, 0.0405, 0.0484, 0.0465, 0.0621, 0.0495),
        "ndcg@10": (0.0682, 0.0797, 0.0729, 0.0469, 0.0587, 0.0541, 0.0693, 0.0695),
        "ndcg@20": (0.0786, 0.0963, 0.0802, 0.0535, 0.0654, 0.0625, 0.0768, 0.0729),
    },
    "games": {
        "recall@5": (0.0654, 0.0631, 0.0679, 0.0519, 0.0588, 0.0567, 0.0532, 0.0569),
        "recall@10": (0.1021, 0.1046, 0.1084, 0.0844, 0.0993, 0.0974, 0.0951, 0.1089),
        "recall@20": (0.1670, 0.1598, 0.1705, 0.1324, 0.1516, 0.1504, 0.1403, 0.1521),
        "ndcg@5": (0.0366, 0.0384, 0.0372, 0.0335, 0.0317, 0.0321, 0.0341, 0.0351),
        "ndcg@10": (0.0504, 0.0569, 0.0527, 0.0439, 0.0445, 0.0439, 0.0462, 0.0474),
        "ndcg@20": (0.0651, 0.0695, 0.0673, 0.0560, 0.0578, 0.0557, 0.0591, 0.0609),
    },
}
# On Arts, on a GPU: training time, inference memory and inference time, relative to SASRec.
TABLE_4: Final[Mapping[str, tuple[float, float, float]]] = {
    "sasrec": (1.0, 1.0, 1.0),
    "unisrec": (2.7, 51.5, 1.9),
    "recformer": (2.1, 81.7, 3.1),
    "unim2rec": (2.5, 64.3, 2.1),
    "prm-kd": (1.2, 1.0, 1.0),
}
CLAIMS: Final[Mapping[str, str]] = {  # what the text says, by our table
    "main": "PRM-KD beats SASRec on most metrics, the teachers beat both, and no teacher is the best everywhere.",
    "cost": "An epoch with distillation costs 1.2 plain epochs; inference costs what the student alone costs.",
    "teachers": "All teachers together beat each alone, in-batch items beat all items, and weights by consistency beat "
    "the average (Figure 3, bars without numbers, on Instruments and Scientific).",
    "students": "FM, DeepFM and LightGCN, too, gain from distillation (Figure 4, bars without numbers, on Instruments "
    "and Arts).",
    "sweeps": "A temperature from 0.02 to 2 serves; too large or too small a weight harms; a width of 300 is best and "
    "400 is worse (Figure 5, lines without numbers, on Instruments, Scientific and Arts).",
}


def printed(dataset: str, model: str) -> dict[str, float]:
    """The paper's metrics of a model on a data set; empty where it prints none.

    Args:
        dataset: a key of `TABLE_3`.
        model: a key of `PAPER_NAMES`.

    >>> printed("scientific", "sasrec")["ndcg@10"], printed("scientific", "fm")
    (0.0549, {})
    """
    if dataset not in TABLE_3 or model not in PAPER_NAMES:
        return {}
    column = list(PAPER_NAMES).index(model)
    return {metric: values[column] for metric, values in TABLE_3[dataset].items()}
