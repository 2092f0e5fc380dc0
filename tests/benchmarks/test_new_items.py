"""The benchmark of new items: what is held out, what is a case, where targets stand, and who is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.new_items import (
    STUDENT,
    Case,
    Quiet,
    Ranked,
    held_out,
    make_cases,
    popularity_scores,
    random_rows,
    rank,
    read_sequences,
    show,
    student_scores,
    summarize,
    write_split,
)
from components.data.cleaning import PrepareConfig
from components.data.prepared import PreparedSet
from components.data.readers import InputConfig
from pipelines.prepare import prepare, write_standalone_manifest
from tests.tiny_artifact import make_model

SEQUENCES = [("ann", ["a", "n", "b", "m", "x"]), ("bob", ["n", "a"]), ("eve", ["x", "n"])]


def test_a_share_of_the_items_is_held_out_by_seed() -> None:
    names = [f"i{n}" for n in range(50)]
    assert len(held_out(names, 0.1, 0)) == 5
    assert held_out(names, 0.1, 0) == held_out(names[::-1], 0.1, 0) != held_out(names, 0.1, 1)


def test_a_case_is_a_new_item_after_a_known_one() -> None:
    """`x` is neither: training lost it with its users."""
    assert make_cases(SEQUENCES, {"n", "m"}, {"a", "b"}) == [
        Case("ann", ("a",), "n"),
        Case("ann", ("a", "b"), "m"),
    ]


def test_a_split_loses_the_interactions_and_keeps_the_texts(tmp_path: Path) -> None:
    rows = [(user, item, place) for user, items in SEQUENCES for place, item in enumerate(items)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row").write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item_id": list("abmnx"), "title": list("ABMNX")}).write_csv(tmp_path / "items.csv")
    source = InputConfig(interactions="log.csv", items="items.csv")
    lowest = PrepareConfig(min_interactions_per_user=1, min_interactions_per_item=1)
    (tmp_path / "whole").mkdir()
    write_standalone_manifest(tmp_path / "whole", prepare(str(tmp_path), source, lowest, tmp_path / "whole", Quiet()))
    whole = PreparedSet(tmp_path / "whole")
    assert sorted(read_sequences(whole)) == SEQUENCES
    write_split(whole, {"n", "m"}, tmp_path / "split")
    log, known, new = (pl.read_parquet(tmp_path / "split" / f"{name}.parquet") for name in ("log", "items", "new"))
    assert sorted(log.filter(pl.col("user_id") == "ann").sort("position")["item_id"]) == ["a", "b", "x"]
    assert sorted(known["item_id"]) == ["a", "b", "x"]
    assert sorted(new["title"]) == ["M", "N"]


def test_targets_are_ranked_among_all_and_among_the_new_items() -> None:
    """Known items 1 to 3, new ones 4 to 6; item 1 is in the history, items 3 and 5 score like the target 6."""
    scores = torch.tensor([[9.0, 8.0, 2.0, 3.0, 2.0, 2.0]])
    found = rank(lambda batch: scores.expand(len(batch), -1), [np.array([1], np.int32)] * 2, np.array([6, 4]), 3)
    assert found.among_all.tolist() == [4.0, 2.0]  # 2 and 4 above 6, two more equal
    assert found.among_new.tolist() == [2.5, 1.0]


def test_popularity_ties_new_items_at_random_behind_all_others() -> None:
    history = [np.array([1], np.int32)] * 6
    targets = np.arange(5, 11)
    found = rank(popularity_scores(np.array([5, 4, 1, 1]), 6, seed=0), history, targets, 4)
    assert sorted(found.among_new) == [1, 2, 3, 4, 5, 6]
    assert sorted(found.among_all) == [4, 5, 6, 7, 8, 9]
    again = rank(popularity_scores(np.array([5, 4, 1, 1]), 6, seed=1), history, targets, 4)
    assert again.among_new.tolist() != found.among_new.tolist()


def test_random_rows_keep_known_items_and_lengths() -> None:
    model, _ = make_model(num_items=30)
    changed = random_rows(model, 20, seed=0)
    old, new = (one.state_dict()["item_embedding.weight"] for one in (model, changed))
    assert torch.equal(old[:21], new[:21])
    torch.testing.assert_close(old[21:].norm(dim=1), new[21:].norm(dim=1))
    assert not torch.allclose(old[21:], new[21:])
    histories = [np.array([3, 4], np.int32)]
    assert rank(student_scores(model), histories, np.array([25]), 20).among_new.shape == (1,)


def test_users_count_once_and_are_compared_in_pairs() -> None:
    cases = [Case("ann", ("a",), "n"), Case("ann", ("a",), "m"), Case("bob", ("a",), "n"), Case("eve", ("a",), "n")]
    good, bad = np.array([1.0, 30.0, 2.0, 3.0]), np.array([90.0, 90.0, 90.0, 90.0])
    ranked = {STUDENT: Ranked(good, good), "random rows": Ranked(bad, good)}
    document = summarize([(cases, ranked), (cases, ranked)])
    assert document["cases"] == [4, 4]
    student, other = (document["among_all"][name] for name in ranked)
    assert student["per_seed"] == [0.75, 0.75]
    assert student["of_users"] == pytest.approx(2.5 / 3)
    assert other["student_against"] < 0.05
    assert document["among_new"]["random rows"]["student_against"] == 1.0
    assert show(document, "title").row_count == 2
