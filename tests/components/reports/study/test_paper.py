"""The paper's numbers are those of its tables: relations that the text states hold in them."""

from __future__ import annotations

import pytest

from components.reports.study.paper import PAPER_NAMES, TABLE_2, TABLE_3, printed

IMPROVEMENTS = {  # column "Improv." of Table 3, in percent
    "instruments": {"recall@5": 10.93, "recall@10": 11.24, "ndcg@5": 13.50, "ndcg@10": 19.21, "ndcg@20": 15.79},
    "toys": {"recall@5": 11.19, "recall@10": 18.79, "recall@20": 9.04, "ndcg@10": 13.13, "ndcg@20": 9.79},
    "scientific": {"recall@10": 15.70, "recall@20": 8.95, "ndcg@5": 16.85, "ndcg@10": 14.21, "ndcg@20": 12.60},
    "arts": {"recall@5": 9.33, "recall@10": 14.80, "recall@20": 6.20, "ndcg@5": 2.27, "ndcg@10": 18.40},
    "games": {"recall@20": 0.33, "ndcg@5": 10.73, "ndcg@10": 6.52, "ndcg@20": 5.36},
}


@pytest.mark.parametrize("dataset", TABLE_3)
def test_improvements_follow_from_the_columns(dataset: str) -> None:
    base, ours = printed(dataset, "sasrec"), printed(dataset, "prm-kd")
    for metric, expected in IMPROVEMENTS[dataset].items():
        assert 100 * (ours[metric] / base[metric] - 1) == pytest.approx(expected, abs=0.06), metric


def test_every_row_has_a_number_per_model() -> None:
    assert TABLE_3.keys() == TABLE_2.keys()
    assert all(len(row) == len(PAPER_NAMES) for table in TABLE_3.values() for row in table.values())
